# Completion of @PROGRAM@ for bash: source it, or put it into /etc/bash_completion.d.

# Puts the words of the line up to the cursor into `words`: bash cuts at = and :, too, where we do not.
__@PROGRAM@_words() {
    local rest=${COMP_LINE:0:COMP_POINT} word i
    words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((i > 0)) && [[ -n $rest && $rest != [[:space:]]* ]]; then
            words[${#words[@]} - 1]+=$word
        else
            words+=("$word")
        fi
        rest=${rest#"${rest%%[![:space:]]*}"}
        rest=${rest#"$word"}
    done
}

__@PROGRAM@_complete() {
    local words=() lines=() line directive typed cut
    COMPREPLY=()
    __@PROGRAM@_words
    mapfile -t lines < <("${words[0]}" __completeNoDesc "${words[@]:1}" 2>/dev/null)
    ((${#lines[@]})) || return 0
    directive=${lines[-1]#:}
    unset 'lines[-1]'
    typed=${words[-1]}
    [[ $typed == --*=* ]] && typed=${typed#*=}
    # What bash has cut off stays where it is.
    cut=${typed%"${typed##*[=:]}"}
    for line in "${lines[@]}"; do
        COMPREPLY+=("${line#"$cut"}")
    done
    ((directive & 2)) && compopt -o nospace 2>/dev/null
    if ((!(directive & 4))) && ((${#COMPREPLY[@]} == 0)); then
        compopt -o default 2>/dev/null
    fi
    return 0
}

complete -F __@PROGRAM@_complete @PROGRAM@
