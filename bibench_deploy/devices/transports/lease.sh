# Holds the lease of a device as long as lines come in on stdin, at least one in $expiry seconds;
# each is a sign of life, and the end of them gives the lease back. Prints "held"; or "busy" with
# the owner's last sign of life in seconds (or "?") and what it says of itself; or "no folder", or
# "no room" on a full disk; later "lost" if somebody else took the lease meanwhile. $folder is the
# work folder, $me says who we are, $proc is where Linux has its own facts, and $watch how many
# seconds to wait for a sign of life.
#
# mkdir makes one holder of many that try at once. Times are the device's own seconds since its
# start, which no set clock changes and no restart survives; where there are none (macOS) they are
# its clock, and a sign of life from the future counts if it does not change for a while.
{
exec 2>/dev/null
umask 077
mkdir -p -- "$folder" && cd -- "$folder" || { echo "no folder"; exit 3; }

read_clock() {
  if read -r seconds _ < "$proc/uptime" && read -r boot < "$proc/sys/kernel/random/boot_id"; then
    seconds=${seconds%%.*}
  else
    boot=none seconds=$(date +%s)
  fi
}

beat() { read_clock; echo "$boot $seconds" > lease/beat; }

# What the holder last gave as a sign of life; also how old that is, or "?" where it cannot be.
look() {
  seen= then= age=?
  read -r seen then < lease/beat || return
  read_clock
  if [ "$seen" != "$boot" ]; then age=restarted
  elif [ "$((seconds - then))" -ge 0 ]; then age=$((seconds - then)); fi
}

is_stale() {
  look
  [ "$age" = restarted ] && return 0
  if [ "$age" = "?" ]; then
    before="$seen $then"
    sleep "$watch"
    look
    [ "$seen $then" = "$before" ] && return 0
    return 1
  fi
  [ "$age" -gt "$expiry" ]
}

is_ours() { owner= && read -r owner < lease/owner && [ "$owner" = "$me" ]; }

# However we end: our host may be gone before it has read what we print, which is SIGPIPE.
trap 'is_ours && rm -rf lease' EXIT
trap 'exit 1' HUP INT PIPE TERM

mine=stale.${me%% *}
tries=0
until mkdir lease; do
  tries=$((tries + 1))
  owner=
  read -r owner < lease/owner
  if [ ! -d . ] || [ ! -w . ]; then echo "no folder"; exit 3; fi
  # Somebody gave it back in this moment.
  [ -d lease ] || { [ "$tries" -lt 50 ] && continue; echo "no room"; exit 3; }
  if [ "$tries" -gt 5 ] || ! is_stale; then echo "busy $age $owner"; exit 4; fi
  # Renaming makes one winner too; if it was not the lease that was looked at, it goes back.
  if mv lease "$mine"; then
    now=
    read -r now < "$mine/owner"
    if [ "$now" = "$owner" ]; then rm -rf "$mine"; else mv "$mine" lease; fi
  fi
done
{ echo "$me" > lease/owner && beat; } || { rm -rf lease; echo "no room"; exit 3; }
echo held

while read -r _; do
  is_ours || { echo lost; exit 5; }
  beat
done
exit 0
}
