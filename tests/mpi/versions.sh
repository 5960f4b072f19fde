#!/usr/bin/env bash
# Ranks of different builds do not begin: one line says which rank has what.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

version=$("$RINGREEL" --version | sed 's/^ringreel //')
other=${version%?}$(((${version: -1} + 1) % 10)) # as long, so that it can take its place in the program
program=$(realpath "$RINGREEL")
LC_ALL=C sed "s/${version//./\\.}/$other/g" "$program" >"$work/other"
cat >"$work/mixed" <<RUN
#!/usr/bin/env bash
[[ \${OMPI_COMM_WORLD_RANK:-0} != 1 ]] || exec "$work/other" "\$@"
exec "$program" "\$@"
RUN
chmod +x "$work/other" "$work/mixed"
equal 'the other program' "ringreel $other" "$("$work/other" --version)"

write_job "$work/job.yaml"
RINGREEL=$work/mixed
differ="versions of ringreel differ: rank 0 on .* has $version .*, rank 1 on .* has $other "
refused 'render by two versions' 3 "$differ" render "$work/job.yaml" -o "$work/videos/clip.mp4"
refused 'decode by two versions' 2 "$differ" decode "$work/none.safetensors" --config "$work/job.yaml" -o "$work/videos/clip.mp4"

finish
