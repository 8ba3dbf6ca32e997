# Makes an ext4 image of an archive. Runs under fakeroot, so that files keep the owners that they
# have in the archive, whoever runs it; extended attributes are left behind, which fakeroot can't
# fake. What is taken out of the tree goes beside the image.
# Arguments: the archive, the folder to work in, the image, its length in bytes.
set -eu
archive=$1 folder=$2 image=$3 length=$4

tree=$folder/tree
mkdir "$tree"
tar --extract --numeric-owner --same-owner --same-permissions --file "$archive" --directory "$tree"
# Any but an empty one, which would be filled by chance at the first boot: mmdebstrap empties it.
echo 6b6173616e652d6465622d726f6f7431 >"$tree/etc/machine-id"

cp "$tree"/boot/vmlinuz-* "$folder/vmlinuz"
cp "$tree"/boot/initrd.img-* "$folder/initrd.img"
cp "$tree/root/.ssh/id_ed25519" "$folder/id_ed25519"
cp "$tree/var/lib/kasane-packages" "$folder/packages"

truncate --size "$length" "$image"
E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH mke2fs -q -t ext4 -L kasane-root \
	-U 6b617361-6e65-4000-8000-726f6f740001 \
	-E hash_seed=6b617361-6e65-4000-8000-726f6f740002,lazy_itable_init=1 -d "$tree" "$image"
