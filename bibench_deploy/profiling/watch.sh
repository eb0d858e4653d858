# How a device is doing, a line each $1 seconds until nobody reads: "t=<thousandths of a degree>
# c=<core>:<kHz>,… b=<ticks at work> i=<ticks idle> f=<flags of the Raspberry Pi's firmware>".
# For the sh of Linux and Android; $2 is /sys and $3 is /proc. It runs beside a measurement: but for
# `sleep` and, each fifth time, the firmware's tool, a reading starts no process.
trap 'exit 0' PIPE
number() { case $1 in ''|*[!0-9-]*) return 1 ;; esac; }
zones= others=
for zone in "$2"/class/thermal/thermal_zone*; do
  type=; [ -r "$zone/temp" ] && [ -r "$zone/type" ] && read -r type < "$zone/type" || continue
  case $type in
    *cpu*|*CPU*|*soc*|*pkg*|*cluster*) zones="$zones $zone/temp" ;;
    *) others="$others $zone/temp" ;;
  esac
done
zones=${zones:-$others}
firmware=; command -v vcgencmd >/dev/null 2>&1 && firmware=yes
flags= count=0
while :; do
  hottest=
  for file in $zones; do
    value=; read -r value < "$file" 2>/dev/null
    number "$value" && if [ -z "$hottest" ] || [ "$value" -gt "$hottest" ]; then hottest=$value; fi
  done
  clocks=
  for folder in "$2"/devices/system/cpu/cpu[0-9]*; do
    [ -r "$folder/cpufreq/scaling_cur_freq" ] || continue
    value=; read -r value < "$folder/cpufreq/scaling_cur_freq" 2>/dev/null
    number "$value" && clocks="$clocks,${folder##*/cpu}:$value"
  done
  busy= idle=
  if [ -r "$3/stat" ]; then
    read -r _ user nice system rest waiting irq soft steal _ < "$3/stat"
    busy=$((user + nice + system + irq + soft + ${steal:-0})) idle=$((rest + waiting))
  fi
  if [ -n "$firmware" ] && [ $((count % 5)) -eq 0 ]; then
    flags=$(vcgencmd get_throttled 2>/dev/null)
  fi
  count=$((count + 1))
  echo "t=$hottest c=${clocks#,} b=$busy i=$idle f=${flags#throttled=}" || exit 0
  sleep "$1"
done
