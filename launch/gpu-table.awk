# The table of gpu-check.sh: awk -f gpu-table.awk targets.tsv results.tsv. -v markdown=1: timings and targets as rows
# for docs/SPEED.md. The head of targets.tsv has its columns, that of gpu-sections.sh those of results.tsv.

BEGIN { FS = "\t" }
/^#/ || NF == 0 { next }
FNR == NR { aims[++na] = $1; measure[$1] = $2; least[$1] = $3; card[$1] = $4; next }
$1 == "fact" { facts[++nf] = $2 "\t" $3 }
$1 == "fact" && $2 == "device" { device = $3 }
$1 == "check" { checks[++nc] = $2 "\t" $3 "\t" $4; count[$3]++ }
$1 == "timing" {
    if ($6 == "ringreel" && !($2 in seconds)) order[++nt] = $2
    if ($6 == "ringreel") { seconds[$2] = $3; tflop[$2] = $4; gb[$2] = $5 }
    else torch[$2] = $3
}

function rate(name, s) {
    if (tflop[name] > 0) return sprintf("%.1f TFLOP/s", tflop[name] / s)
    if (gb[name] > 0) return sprintf("%.0f GB/s", gb[name] / s)
    return "-"
}
# Of the larger of ringreel's and PyTorch's measure of the same.
function ceiling(name,    r, t) {
    r = (tflop[name] + gb[name]) / (seconds[name] > 0 ? seconds[name] : 1e30)
    t = name in torch && torch[name] > 0 ? (tflop[name] + gb[name]) / torch[name] : 0
    return r > t ? r : t
}
function share(name,    top) {
    top = tflop[name] > 0 ? peak_tflops : gb[name] > 0 ? peak_gbs : 0
    return top > 0 && seconds[name] > 0 ? 100 * (tflop[name] + gb[name]) / seconds[name] / top : 0
}
function percent(x) { return x > 0 ? sprintf("%.0f %%", x) : "-" }
function times(name) {
    return name in torch && torch[name] > 0 && seconds[name] > 0 ? sprintf("%.2f", torch[name] / seconds[name]) : "-"
}
function duration(s) { return s == "" ? "?" : s < 1 ? sprintf("%.3f ms", 1e3 * s) : sprintf("%.2f s", s) }

# ---- targets ----

function is_timed(name) { return name in seconds && seconds[name] > 0 }
function measured(name) {
    if (!is_timed(name)) return "-"
    if (measure[name] == "share") return percent(share(name))
    return measure[name] == "tflops" ? rate(name, seconds[name]) : duration(seconds[name])
}
function aim(name,    text) {
    text = measure[name] == "share" ? ">= " least[name] " % of the ceiling" : \
        measure[name] == "tflops" ? ">= " least[name] " TFLOP/s" : "<= " least[name] " s"
    return text (card[name] == "" ? "" : ", " card[name])
}
function is_met(name) {
    if (measure[name] == "share") return share(name) >= least[name]
    return measure[name] == "tflops" ? tflop[name] / seconds[name] >= least[name] : seconds[name] <= least[name]
}
function verdict(name) {
    if (!is_timed(name)) return "not measured"
    if (device ~ /emulated/) return "not judged: emulated"
    if (card[name] != "" && !index(device, card[name])) return "not judged: another card"
    if (measure[name] == "share" && share(name) == 0) return "not judged: no ceiling"
    return is_met(name) ? "met" : "missed"
}
function count_verdicts(    i, v) {
    for (i = 1; i <= na; i++) { v = verdict(aims[i]); sub(/:.*/, "", v); verdicts[v]++ }
}

END {
    peak_gbs = ceiling("copy within the device, 1 GiB")
    peak_tflops = ceiling("linear 8192 x 8192 -> 8192")
    if (markdown) {
        for (i = 1; i <= nf; i++) { split(facts[i], f, "\t"); printf "%s%s: %s", (i > 1 ? "; " : ""), f[1], f[2] }
        print "\n\n| | time | | of the ceiling | PyTorch's time / ours |\n|---|---|---|---|---|"
        for (i = 1; i <= nt; i++) {
            n = order[i]
            printf "| %s | %s | %s | %s | %s |\n", n, duration(seconds[n]), rate(n, seconds[n]), \
                percent(share(n)), times(n)
        }
        print "\n| target | measured | aim | |\n|---|---|---|---|"
        for (i = 1; i <= na; i++) {
            n = aims[i]
            printf "| %s | %s | %s | %s |\n", n, measured(n), aim(n), verdict(n)
        }
        exit
    }
    print ""
    for (i = 1; i <= nf; i++) { split(facts[i], f, "\t"); printf "%-16s %s\n", f[1], f[2] }
    printf "\n%-72s %-8s %s\n", "check", "", ""
    for (i = 1; i <= nc; i++) { split(checks[i], c, "\t"); printf "%-72s %-8s %s\n", c[1], c[2], c[3] }
    printf "\n%-72s %12s %14s %10s %10s\n", "timing", "time", "", "ceiling", "PyTorch/us"
    for (i = 1; i <= nt; i++) {
        n = order[i]
        printf "%-72s %12s %14s %10s %10s\n", n, duration(seconds[n]), rate(n, seconds[n]), percent(share(n)), times(n)
    }
    printf "\n%-72s %14s  %-34s %s\n", "target", "measured", "aim", ""
    for (i = 1; i <= na; i++) { n = aims[i]; printf "%-72s %14s  %-34s %s\n", n, measured(n), aim(n), verdict(n) }
    count_verdicts()
    printf "\n%d passed, %d failed, %d not run\n", count["passed"], count["failed"], count["not run"]
    printf "%d targets met, %d missed, %d not judged, %d not measured\n", verdicts["met"], verdicts["missed"], \
        verdicts["not judged"], verdicts["not measured"]
}
