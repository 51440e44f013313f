#compdef @PROGRAM@
# Completion of @PROGRAM@ for zsh: put it as _@PROGRAM@ into a directory of $fpath, or source it after compinit.

_@PROGRAM@() {
    local line directive
    local -a lines candidates options
    lines=("${(@f)$("${words[1]}" __complete "${(@Q)words[2,CURRENT-1]}" "${(Q)words[CURRENT]}" 2>/dev/null)}")
    (( $#lines )) || return 1
    directive=${lines[-1]#:}
    lines[-1]=()
    for line in "${lines[@]}"; do
        candidates+=("${${line%%$'\t'*}//:/\\:}${${(M)line%%$'\t'*}:+:${line#*$'\t'}}")
    done
    [[ ${words[CURRENT]} == --*=* ]] && compset -P '--*='
    (( directive & 2 )) && options=(-S '')
    _describe -t candidates '@PROGRAM@' candidates "${options[@]}" && return 0
    (( directive & 4 )) || _files
}

compdef _@PROGRAM@ @PROGRAM@
