# What a device is and how it is doing, in sections: a line "@name", then what was found.
# For the sh of Linux, Android and macOS. $1: the Python that has the runtimes; $2: a folder
# whose free space counts. Reads only; what a device does not have is an empty section.
section() { printf '\n@%s\n' "$1"; }
{
  section time; date +%s
  section system; uname -s
  section machine; uname -m
  section kernel; uname -r
  section release; grep PRETTY_NAME= /etc/os-release || sw_vers -productVersion
  section android
  if command -v getprop; then
    getprop ro.build.version.release; getprop ro.soc.model; getprop ro.hardware; getprop ro.product.model
  fi
  section cpuinfo; cat /proc/cpuinfo
  section model; tr -d '\0' < /proc/device-tree/model
  section memory; cat /proc/meminfo
  section cores; nproc
  section clocks
  for cpu in /sys/devices/system/cpu/cpu[0-9]*; do
    for file in cpuinfo_max_freq scaling_cur_freq scaling_governor; do
      printf '%s %s ' "${cpu##*/cpu}" "$file"; cat "$cpu/cpufreq/$file" || echo
    done
  done
  section temperatures
  for zone in /sys/class/thermal/thermal_zone*; do
    printf '%s %s\n' "$(cat "$zone/temp")" "$(cat "$zone/type")"
  done
  section throttled; vcgencmd get_throttled
  # The interpreter of a foreign instruction set shows in the link of another process.
  section executable; readlink "/proc/$$/exe"
  section folder; df -Pk "$2" || df -Pk .
  if [ "$(uname -s)" = Darwin ]; then
    section sysctl
    sysctl machdep.cpu.brand_string hw.logicalcpu hw.memsize hw.perflevel0.logicalcpu hw.perflevel1.logicalcpu
  fi
  section python
  "$1" -c '
import importlib.metadata as metadata, json, platform
packages = {}
for name in ("larq-compute-engine", "numpy", "onnxruntime"):
    try:
        packages[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps({"python": platform.python_version(), "packages": packages}))'
} 2>/dev/null
exit 0
