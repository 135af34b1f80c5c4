# bash completion for hvctl. The candidates come from `hvctl __complete`, which knows the
# command table and asks the service for names (300 ms at most, silent on failure).

_hvctl() {
    local cur line rest word i joined=() before reply=()

    # bash splits words at '=' and ':' too: put together again what no blank divides.
    line=${COMP_LINE:0:COMP_POINT}
    rest=$COMP_LINE
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        before=${rest%%"$word"*}
        rest=${rest#"$before"}
        rest=${rest#"$word"}
        if ((i > 0)) && [[ -z $before && ${#joined[@]} -gt 0 ]]; then
            joined[-1]+=$word
        else
            joined+=("$word")
        fi
    done
    # After a blank at the end of the line a new, empty word begins.
    if [[ $line == *[[:space:]] && -n ${COMP_WORDS[COMP_CWORD]} ]]; then
        joined+=("")
    fi
    cur=${joined[-1]}
    cur=${cur#[\"\']}
    joined[-1]=$cur

    while IFS= read -r word; do
        reply+=("$word")
    done < <("${joined[0]}" __complete --shell bash -- "${joined[@]:1}" 2>/dev/null)

    COMPREPLY=()
    local path=$cur cut=""
    [[ $cur == --*=* ]] && path=${cur#*=}
    # What stands before the last word break is on the line already.
    [[ $cur == *[=:]* && $COMP_WORDBREAKS == *[=:]* ]] && cut=${cur%"${cur##*[=:]}"}
    for word in "${reply[@]}"; do
        case $word in
        :dir)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -d -- "$path")
            return ;;
        :file\ *)
            compopt -o filenames 2>/dev/null
            if [[ ${word#:file } == "*" ]]; then
                mapfile -t COMPREPLY < <(compgen -f -- "$path")
            else
                mapfile -t COMPREPLY < <(compgen -d -- "$path"; compgen -f -X "!${word#:file }" -- "$path")
            fi
            return ;;
        *)
            word=${word#"$cut"}
            printf -v word %q "$word"
            COMPREPLY+=("$word") ;;
        esac
    done
    # A value, a comma or a longer word may follow these: no blank after them.
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=:,] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -F _hvctl hvctl
