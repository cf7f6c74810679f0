// Images that another program than QEMU wrote, by its own code: e2fsprogs' e2image.
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { needs, Random, runSync, tempDir } from '@tidemark/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import { closeChain, openChain, openDisk } from '../src/index.js'
import { fileOpener, nodeCodecs } from '../src/node/index.js'

const peers = needs('qemu-img', 'e2image', 'mke2fs')
const dir = tempDir()
afterAll(() => dir.remove())

describe.skipIf(peers.skip)(`e2image -Q${peers.label}`, () => {
  it.each([1024, 4096])('writes images of file systems with blocks of %d bytes', async blockBytes => {
    const [fs, file, raw] = ['fs', 'qcow2', 'raw'].map(name => dir.file(`${blockBytes}.${name}`)) as [
      string,
      string,
      string,
    ]
    writeFileSync(fs, '')
    truncateSync(fs, 24 * 1024 * 1024)
    const label = new Random(blockBytes).bytes(8).map(byte => 97 + (byte % 26))
    runSync('mke2fs', [
      '-q',
      '-F',
      '-t',
      'ext4',
      '-b',
      String(blockBytes),
      '-L',
      Buffer.from(label).toString(),
      fs,
    ])
    runSync('e2image', ['-Q', fs, file])
    runSync('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', file, raw])
    const expected = readFileSync(raw)
    expect(expected.indexOf(label)).toBeGreaterThan(0)

    const open = fileOpener()
    const chain = await openChain({ name: file }, { open })
    try {
      expect(chain[0]!.inspection).toMatchObject({ clusterSize: blockBytes, header: { version: 2 } })
      const disk = await openDisk(chain, { open, codecs: nodeCodecs })
      const bytes = Buffer.alloc(disk.size)
      await disk.readInto(bytes, 0)
      expect(bytes.equals(expected)).toBe(true)
    } finally {
      await closeChain(chain)
    }
  })
})
