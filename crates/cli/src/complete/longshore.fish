# Completion of @PROGRAM@ for fish: put it as @PROGRAM@.fish into ~/.config/fish/completions, or source it.

function __@PROGRAM@_complete
    set -l before (commandline -opc)
    set -l last (commandline -ct)
    set -l lines ($before[1] __complete $before[2..-1] "$last" 2>/dev/null)
    test (count $lines) -gt 0; or return
    set -l directive (string replace ':' '' -- $lines[-1])
    set -e lines[-1]
    # The value of --flag=value is completed together with its flag.
    set -l flag (string match -r -- '^--[^=]*=' $last)
    for line in $lines
        echo "$flag$line"
    end
    if test (count $lines) -eq 0; and test (math "floor($directive / 4) % 2") -eq 0
        __fish_complete_path $last
    end
end

complete -c @PROGRAM@ -e
complete -c @PROGRAM@ -f -a '(__@PROGRAM@_complete)'
