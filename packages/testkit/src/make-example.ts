#!/usr/bin/env node
/**
 * Makes the bundled example again: `node packages/testkit/dist/make-example.js [OUTDIR]`, from the top of the
 * checkout, as root, since the images live in libvirt's own folder while it is made, and with all peers.
 */
import { resolve } from 'node:path'
import { makeWebshop } from './example-webshop.js'
import { installPeers, missingPeers, type Peer } from './peers.js'

const peers: Peer[] = ['libvirt', 'qemu-nbd', 'nbdinfo']
const missing = missingPeers(...peers)
if (missing.length > 0) throw new Error(`needs ${missing.join(', ')}; install with: ${installPeers}`)
if (process.getuid?.() !== 0)
  throw new Error('needs root: the images live in /var/lib/libvirt/images meanwhile')

const outDir = resolve(process.argv[2] ?? 'examples/webshop')
const { verdicts } = await makeWebshop(outDir, '/var/lib/libvirt/images/webshop')
console.log(`${outDir}: what libvirt says of an incremental backup since each checkpoint`)
console.table(verdicts)
