#!/bin/sh -e
# Backup of domain webshop since checkpoint monday; run with sh -e
# sda: incremental
tidemark map '/CHECKOUT/examples/webshop/images/root.qcow2' --bitmap 'monday' --output json > 'sda.dirty.json'
tidemark dump '/CHECKOUT/examples/webshop/images/root.qcow2' --bitmap 'monday' --map-source '/var/lib/libvirt/images/webshop=/CHECKOUT/examples/webshop/images' -o 'sda.dirty.raw'
# sdb: incremental
tidemark map '/CHECKOUT/examples/webshop/images/data.overlay.qcow2' --bitmap 'monday' --bitmap 'monday@/CHECKOUT/examples/webshop/images/data.qcow2' --output json > 'sdb.dirty.json'
tidemark dump '/CHECKOUT/examples/webshop/images/data.overlay.qcow2' --bitmap 'monday' --bitmap 'monday@/CHECKOUT/examples/webshop/images/data.qcow2' --map-source '/var/lib/libvirt/images/webshop=/CHECKOUT/examples/webshop/images' -o 'sdb.dirty.raw'
# sdc: full (disk-not-in-checkpoint)
qemu-img convert -f 'qcow2' -O qcow2 '/CHECKOUT/examples/webshop/images/logs.qcow2' 'sdc.full.qcow2'
