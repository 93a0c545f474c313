# Runs the snippet beside it on every route of the command line, and prints what it hears.
source "${BASH_SOURCE%/*}/snippet.bash"

hear() { # kind data
    # The data goes out as it came: if that is no JSON, neither is the line. A pipe mingles long lines.
    flock 9
    printf '{"route":"%s","kind":"%s","data":%s}\n' "$route" "$1" "$2"
    flock -u 9
}

while [ $# -gt 0 ]; do
    route=$1
    follow "$2" "$3" </dev/null 9>"${BASH_SOURCE%/*}/lock" &
    shift 3
done
cat >/dev/null
# This shell is the first of its group, and all that it has started belong to that.
kill -KILL -- -$$
