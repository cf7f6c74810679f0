#!/bin/sh -e
# Backup of domain webshop since checkpoint wednesday; run with sh -e
# sda: incremental
tidemark map '/CHECKOUT/examples/webshop/images/root.qcow2' --bitmap 'wednesday' --output json > 'sda.dirty.json'
tidemark dump '/CHECKOUT/examples/webshop/images/root.qcow2' --bitmap 'wednesday' --map-source '/var/lib/libvirt/images/webshop=/CHECKOUT/examples/webshop/images' -o 'sda.dirty.raw'
# sdb: incremental
tidemark map '/CHECKOUT/examples/webshop/images/data.overlay.qcow2' --bitmap 'wednesday' --output json > 'sdb.dirty.json'
tidemark dump '/CHECKOUT/examples/webshop/images/data.overlay.qcow2' --bitmap 'wednesday' --map-source '/var/lib/libvirt/images/webshop=/CHECKOUT/examples/webshop/images' -o 'sdb.dirty.raw'
# sdc: incremental
tidemark map '/CHECKOUT/examples/webshop/images/logs.qcow2' --bitmap 'wednesday' --output json > 'sdc.dirty.json'
tidemark dump '/CHECKOUT/examples/webshop/images/logs.qcow2' --bitmap 'wednesday' --map-source '/var/lib/libvirt/images/webshop=/CHECKOUT/examples/webshop/images' -o 'sdc.dirty.raw'
