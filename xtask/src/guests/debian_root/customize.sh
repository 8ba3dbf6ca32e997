#!/bin/sh
# What makes Debian's packages a guest for tests. mmdebstrap runs it, as root or as the root of a
# user namespace, with the new root file system's folder as the argument.
set -eu
root=$1

put() { mkdir -p "$root/$(dirname "$1")"; cat >"$root/$1"; }

echo kasane-root >"$root/etc/hostname"
put etc/hosts <<END
127.0.0.1	localhost
127.0.1.1	kasane-root
::1	localhost ip6-localhost ip6-loopback
END
put etc/fstab <<END
/dev/vda	/	ext4	rw,relatime	0	1
END
put etc/default/locale <<END
LANG=C.UTF-8
END
rm -f "$root/var/lib/dbus/machine-id"
mkdir -p "$root/var/lib/dbus" # whose machine-id is the one of /etc, made with the image
ln -s /etc/machine-id "$root/var/lib/dbus/machine-id"

# Any network card that there is; none is no failure.
put etc/systemd/network/80-any.network <<END
[Match]
Type=ether

[Network]
DHCP=yes
LLMNR=no
MulticastDNS=no

[DHCPv4]
# Two guests of one image have one machine-id, from which the address would come.
ClientIdentifier=mac

[DHCPv6]
DUIDType=link-layer
END
put etc/systemd/resolved.conf.d/quiet.conf <<END
[Resolve]
LLMNR=no
MulticastDNS=no
END
put etc/systemd/journald.conf.d/small.conf <<END
[Journal]
Storage=volatile
RuntimeMaxUse=16M
END

# A shell without a password on the consoles, when there is the device.
put etc/systemd/system/serial-getty@.service.d/autologin.conf <<'END'
[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200,57600,38400,9600 - $TERM
END
# A port without hardware has type 0.
put etc/udev/rules.d/90-consoles.rules <<'END'
SUBSYSTEM=="tty", KERNEL=="ttyS0", ATTR{type}!="0", TAG+="systemd", ENV{SYSTEMD_WANTS}+="serial-getty@ttyS0.service"
SUBSYSTEM=="tty", KERNEL=="hvc0", TAG+="systemd", ENV{SYSTEMD_WANTS}+="serial-getty@hvc0.service"
END
put root/.bashrc <<'END'
# For programs as for persons: a clear prompt, no pager, nothing but text.
PS1='kasane-root# '
export SYSTEMD_PAGER= SYSTEMD_COLORS=0 PAGER=cat
END
put root/.inputrc <<'END'
set enable-bracketed-paste off
END
put root/.bash_profile <<'END'
. ~/.bashrc
END
: >"$root/etc/motd"
rm -f "$root/etc/update-motd.d/10-uname"

chroot "$root" systemctl enable --quiet systemd-networkd systemd-resolved
# Waiting fails where there is no network; the rest would work while a test measures.
chroot "$root" systemctl mask --quiet systemd-networkd-wait-online.service \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
	e2scrub_reap.service

# One key for the way in and for the way from one guest of the image to another.
mkdir -p -m 700 "$root/root/.ssh"
chroot "$root" ssh-keygen -q -t ed25519 -N '' -C kasane-root -f /root/.ssh/id_ed25519
cp "$root/root/.ssh/id_ed25519.pub" "$root/root/.ssh/authorized_keys"
put root/.ssh/config <<END
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
END
chroot "$root" dpkg-query -W >"$root/var/lib/kasane-packages"
# The host's proxies, which a guest doesn't reach, and links to a kernel that is not there.
rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/vmlinuz.old" "$root/initrd.img.old"
