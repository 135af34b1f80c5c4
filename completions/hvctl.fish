# fish completion for hvctl. The candidates and their descriptions come from
# `hvctl __complete`, which knows the command table and asks the service for names (300 ms
# at most, silent on failure).

function __hvctl_complete
    set -l words (commandline -opc)
    set -l cur (commandline -ct)
    set -l tool $words[1]
    set -e words[1]
    for line in ($tool __complete --shell fish -- $words "$cur" 2>/dev/null)
        switch $line
            case ':dir'
                __fish_complete_directories (string replace -r '^--[^=]*=' '' -- $cur) ''
            case ':file *'
                set -l lead (string match -r '^--[^=]*=' -- $cur)
                for path in (__fish_complete_path (string replace -r '^--[^=]*=' '' -- $cur))
                    echo $lead$path
                end
            case '*'
                echo $line
        end
    end
end

complete -c hvctl -f -a '(__hvctl_complete)'
