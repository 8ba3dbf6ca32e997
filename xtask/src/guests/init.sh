#!/bin/busybox sh
# The first process of our test guests. It loads the kernel modules that its
# image has, prints `kasane-guest: ready` and then, by the kernel's command line:
#   kasane.run=BASE64   runs the decoded script, prints `kasane-guest: exit N`
#                       with its status, and powers off
#   otherwise           an interactive shell on the console, again and again
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM="${TERM:-linux}"
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
hostname kasane
if [ -f /lib/modules/order ]; then
	while read -r module; do
		insmod "/lib/modules/$module.ko"
	done </lib/modules/order
fi
echo "kasane-guest: ready"

script=
for word in $(cat /proc/cmdline); do
	case $word in
	kasane.run=*) script=${word#kasane.run=} ;;
	esac
done

if [ -n "$script" ]; then
	echo "$script" | base64 -d >/tmp/run.sh
	sh /tmp/run.sh
	echo "kasane-guest: exit $?"
	sync
	poweroff -f
	sleep 60
fi

cd /root
while true; do
	# A shell with a terminal of its own, so that ^C and job control work.
	setsid cttyhack sh -l
	echo "kasane-guest: the shell has ended, here is another one"
done
