# Sets the frequency governor to "performance" while somebody listens, and puts back what was there
# at the end, whatever it is. $1 is /sys/devices/system/cpu; then the cores, none for all of them.
# Says "pinned", then a line each second; or "denied FILE"; "odd FILE" where it
# holds no name; "none" where a device has no governor.
cpus=$1; shift
saved= guard=
put_back() {
  for entry in $saved; do echo "${entry#*=}" > "${entry%%=*}"; done 2>/dev/null
}
leave() {
  trap '' HUP INT TERM PIPE; trap - EXIT
  [ -n "$guard" ] && kill -KILL "$guard"
  put_back
  exit 0
}
trap leave HUP INT TERM PIPE EXIT
wanted() {
  [ -z "$cores" ] && return 0
  for core in $cores; do [ "$core" = "$1" ] && return 0; done
  return 1
}
cores=$*
for folder in "$cpus"/cpu[0-9]*; do
  file=$folder/cpufreq/scaling_governor
  [ -r "$file" ] && wanted "${folder##*/cpu}" || continue
  read -r governor < "$file"
  # What is put back is split at spaces: only the name of a governor may be among it.
  case $governor in ''|*[!A-Za-z0-9_.-]*) echo "odd $file"; exit 1;; esac
  [ -w "$file" ] || { echo "denied $file"; exit 1; }
  saved="$saved $file=$governor"
  { echo performance > "$file"; } 2>/dev/null || { echo "denied $file"; exit 1; }
done
[ -n "$saved" ] || { echo none; exit 1; }
# Killed without a chance to act, this process is missed by its child. A dead one that nobody has
# asked for yet has an empty command line.
lives() { line=; read -r line < "/proc/$$/cmdline"; [ -n "$line" ]; }
( trap '' HUP INT TERM PIPE; while lives; do sleep 1; done; put_back ) >/dev/null 2>&1 &
guard=$!
echo pinned
while sleep 1; do echo .; done
