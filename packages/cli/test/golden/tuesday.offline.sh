#!/bin/sh -e
# Backup of domain webshop since checkpoint tuesday; run with sh -e
# sda: incremental
tidemark map '/CHECKOUT/examples/webshop/images/root.qcow2' --bitmap 'tuesday' --output json > 'sda.dirty.json'
tidemark dump '/CHECKOUT/examples/webshop/images/root.qcow2' --bitmap 'tuesday' --map-source '/var/lib/libvirt/images/webshop=/CHECKOUT/examples/webshop/images' -o 'sda.dirty.raw'
# sdb: incremental
tidemark map '/CHECKOUT/examples/webshop/images/data.overlay.qcow2' --bitmap 'tuesday' --bitmap 'tuesday@/CHECKOUT/examples/webshop/images/data.qcow2' --output json > 'sdb.dirty.json'
tidemark dump '/CHECKOUT/examples/webshop/images/data.overlay.qcow2' --bitmap 'tuesday' --bitmap 'tuesday@/CHECKOUT/examples/webshop/images/data.qcow2' --map-source '/var/lib/libvirt/images/webshop=/CHECKOUT/examples/webshop/images' -o 'sdb.dirty.raw'
# sdc: incremental
tidemark map '/CHECKOUT/examples/webshop/images/logs.qcow2' --bitmap 'tuesday' --output json > 'sdc.dirty.json'
tidemark dump '/CHECKOUT/examples/webshop/images/logs.qcow2' --bitmap 'tuesday' --map-source '/var/lib/libvirt/images/webshop=/CHECKOUT/examples/webshop/images' -o 'sdc.dirty.raw'
