// The README's examples are programs: each runs as it stands, against the built package.
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { tempDir, writeQcow2 } from '@tidemark/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import { dataImage } from './data-image.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const blocks = [
  ...readFileSync(`${root}/README.md`, 'utf8').matchAll(/^### (.+)\n[\s\S]*?```js\n([\s\S]*?)```/gm),
]
const dir = tempDir()
afterAll(() => dir.remove())

// What the README says the examples' images are.
writeQcow2(dir.file('base.qcow2'), { bitmaps: [{ name: 'monday', dirty: [0] }] })
writeQcow2(dir.file('disk.qcow2'), {
  backingFile: 'base.qcow2',
  backingFormat: 'qcow2',
  bitmaps: [
    { name: 'monday', dirty: [1, 2] },
    { name: 'tuesday', granularityBits: 9, dirty: [300] },
  ],
})
const greeting = new Uint8Array(65536)
greeting.set(new TextEncoder().encode('Hello from the guest'))
writeFileSync(dir.file('vm.qcow2'), dataImage({ l2: [greeting] }).bytes)

describe('README', () => {
  it('has examples', () => expect(blocks.length).toBeGreaterThanOrEqual(3))

  it.each(blocks.map(([, title, code]) => [title!, code!]))('%s', (_, code) => {
    // A comment at a line's end is what the line prints.
    const expected = [...code.matchAll(/console\.log\(.*\) \/\/ (.*)$/gm)].map(([, text]) => text!)
    const input = code.replace(/'(disk|vm)\.qcow2'/g, (_, name) => JSON.stringify(dir.file(`${name}.qcow2`)))
    const printed = execFileSync(process.execPath, ['--input-type=module'], {
      cwd: root,
      input,
      encoding: 'utf8',
    })
    expect(printed.trimEnd().split('\n')).toEqual(expected)
  })
})
