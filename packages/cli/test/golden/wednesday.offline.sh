#!/bin/sh -e
# Backup of domain webshop since checkpoint wednesday; run with sh -e
# sda: incremental
tidemark map '/CHECKOUT/examples/webshop/images/root.qcow2' --bitmap 'wednesday' --output json > 'sda.dirty.json'
# sdb: incremental
tidemark map '/CHECKOUT/examples/webshop/images/data.overlay.qcow2' --bitmap 'wednesday' --output json > 'sdb.dirty.json'
# sdc: incremental
tidemark map '/CHECKOUT/examples/webshop/images/logs.qcow2' --bitmap 'wednesday' --output json > 'sdc.dirty.json'
