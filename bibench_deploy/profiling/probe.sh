# What a device is and how it is doing, in sections: a line "@name", then what was found.
# For the sh of Linux, Android and macOS. $1: the Python that has the runtimes; $2: a folder
# whose free space counts. Reads only; what a device does not have is an empty section.
section() { printf '\n@%s\n' "$1"; }
# Sets $line to the first line of a file, without starting a process: a phone has a hundred of them.
first_line() { line=; [ -r "$1" ] && read -r line < "$1"; }
{
  section time; date +%s
  system=$(uname -s)
  section system; echo "$system"
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
      first_line "$cpu/cpufreq/$file"; echo "${cpu##*/cpu} $file $line"
    done
  done
  section temperatures
  for zone in /sys/class/thermal/thermal_zone*; do
    first_line "$zone/temp"; degrees=$line; first_line "$zone/type"; echo "$degrees $line"
  done
  section throttled; vcgencmd get_throttled
  section taskset; command -v taskset
  # The interpreter of a foreign instruction set shows in the link of another process.
  section executable; readlink "/proc/$$/exe"
  section folder; df -Pk "$2" || df -Pk .
  if [ "$system" = Darwin ]; then
    section sysctl
    sysctl machdep.cpu.brand_string hw.logicalcpu hw.memsize hw.perflevel0.logicalcpu hw.perflevel1.logicalcpu
  fi
  section python
  # The names of installed packages are folders; to import what lists them takes longer than Python.
  "$1" -c '
import os, re, sys
print(sys.version.split()[0])
for folder in reversed(sys.path):
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        found = re.match(r"(larq_compute_engine|numpy|onnxruntime)-([^-]+).*[.](dist|egg)-info$", name)
        if found:
            print(found.group(1).replace("_", "-"), found.group(2))'
} 2>/dev/null
exit 0
