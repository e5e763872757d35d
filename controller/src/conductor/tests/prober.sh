# A prober for tests. What a probe sees stands in a file named like its program, in the directory given first:
# good, bad, nothing (it says neither), hang (bad after 0.4 s), unusable, die. Every sample is noted in the file `samples`.
cd "$1" || exit 1
declare -A names
read -r up _ </proc/uptime
wall=${EPOCHREALTIME/./}
# The kernel shows the boot clock in hundredths of a second, rounded down.
offset=$((10#${up/./} * 10000 + 10000 - wall))
sample() {
  echo "{\"sample\":{\"probe\":$1,\"begun-ns\":$2,\"took-ns\":1000000,\"good\":$3,\"seen\":\"$4\"}}"
}
while IFS= read -r line; do
  [[ $line =~ \"probe\":([0-9]+) ]] && probe=${BASH_REMATCH[1]}
  case $line in
  '{"load"'*)
    [[ $line =~ \"argv\":\[\"([^\"]*)\" ]] && names[$probe]=${BASH_REMATCH[1]}
    [[ $(<"${names[$probe]}") == unusable ]] && echo "{\"unusable\":{\"probe\":$probe,\"why\":\"no such program\"}}"
    ;;
  '{"once"'*)
    begun=$(((${EPOCHREALTIME/./} + offset) * 1000))
    name=${names[$probe]}
    echo "$name" >>samples
    case $(<"$name") in
    good) sample "$probe" "$begun" true 'exit 0 in 1.0 ms' ;;
    nothing) sample "$probe" "$begun" 'false,"unclear":true' 'no data' ;;
    bad) sample "$probe" "$begun" false 'exit 1 with password hunter2' ;;
    hang) (sleep 0.4 && sample "$probe" "$begun" false 'timed out') & ;;
    die) exit 3 ;;
    esac
    ;;
  esac
done
