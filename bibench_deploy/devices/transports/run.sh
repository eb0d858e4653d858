# Runs "$@" on a device for at most $limit seconds; $grace more are its own to end in. A device's
# sh reads this from its stdin, which stays open as long as somebody waits for the result: when it
# closes, because the link was cut or its owner interrupted, the command and its children are
# killed. In braces, so that half of it does nothing.
{
exec 3<&0 0</dev/null 4>&2 2>/dev/null
# A process group of its own, to be killed as one: not every `timeout` makes it (BusyBox).
group=
command -v setsid >/dev/null && group=setsid
if command -v timeout >/dev/null; then
  $group timeout -k "$grace" "$limit" "$@" 2>&4 3<&- 4>&- &
else
  # macOS has no timeout. An alarm outlives exec.
  perl -e 'setpgrp; alarm shift; exec { $ARGV[0] } @ARGV; print STDERR "timeout: $!\n"; exit 127' \
    "$limit" "$@" 2>&4 3<&- 4>&- &
fi
command=$!
{
  read -r _ 0<&3
  # The process itself in the moment before it has made its group.
  kill -TERM "-$command" || kill -TERM "$command"
  sleep "$grace"
  kill -KILL "-$command"
} >/dev/null 4>&- &  # its sleep may outlive us, and would keep our stderr open
watcher=$!
exec 3<&- 4>&-
wait "$command"
code=$?
kill -KILL "$watcher"
# What the command started and did not wait for.
kill -KILL "-$command"
exit "$code"
}
