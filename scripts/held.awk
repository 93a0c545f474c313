# Adds up what scenarios have held. Each prints one line for each run, perhaps behind a runner's dots:
#
#     held: NAME, seed N: 26 clients; 294 resumes; …; 1300 ms to the slowest recovery
#
# Counts are added; of milliseconds and the like, which say "slowest" or "most", the greatest counts. What draws
# nothing from the seed names none.
match($0, /held: .+: [0-9]/) {
    line = substr($0, RSTART + 6)
    if (!match(line, /, seed [0-9]+: /)) match(line, /: /)
    name = substr(line, 1, RSTART - 1)
    if (!(name in runs)) names[++scenarios] = name
    runs[name]++
    total++
    parts = split(substr(line, RSTART + RLENGTH), part, "; ")
    for (i = 1; i <= parts; i++) {
        space = index(part[i], " ")
        number = substr(part[i], 1, space - 1) + 0
        label = substr(part[i], space + 1)
        if (!(label in sums)) labels[++kinds] = label
        if (label ~ /slowest|most/) { if (number > sums[label]) sums[label] = number }
        else sums[label] += number
    }
}
END {
    if (!total) { print "held: nothing has run"; exit 1 }
    printf "\n%d runs of %d scenarios, and nothing was lost, doubled or out of order:\n\n", total, scenarios
    for (i = 1; i <= scenarios; i++) printf "%12d  × %s\n", runs[names[i]], names[i]
    print ""
    for (i = 1; i <= kinds; i++) printf "%12d  %s\n", sums[labels[i]], labels[i]
}
