// Longer than most: what each argument of one command means, and that each failure leaves no trace.
// tidemark bitmap without QEMU: what its arguments mean, what it refuses, and that a refusal leaves no trace.
import { createHash } from 'node:crypto'
import { copyFileSync, linkSync, readFileSync, statSync, symlinkSync, truncateSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { openWritableFile } from '@tidemark/qcow2/node'
import { type BitmapSpec, programPath, type Qcow2Spec, run, tempDir, writeQcow2 } from '@tidemark/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import { Interruption } from '../src/interruption.js'
import { bin, plainEnv, tidemark, tidemarkError, tidemarkJson } from './cli.js'

const dir = tempDir()
afterAll(() => dir.remove())
const MiB = 2 ** 20

let serial = 0
const newPlace = () => dir.file(`i${serial++}.qcow2`)

/** A disk of 64 MiB: `even` and `low` mark other granules, `off` does not record. */
const bitmaps: readonly BitmapSpec[] = [
  { name: 'even', dirty: [0, 2, 4, 6] },
  { name: 'low', dirty: [0, 1] },
  { name: 'off', flags: 0, granularityBits: 12, dirty: [160] },
]
function image(spec: Qcow2Spec = {}): string {
  const file = newPlace()
  writeQcow2(file, { virtualSize: 64 * MiB, bitmaps, ...spec })
  return file
}

const hash = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex')

interface EditJson {
  readonly filename: string
  readonly bitmap: string
  readonly 'dry-run': boolean
  readonly actions: readonly Record<string, unknown>[]
  readonly 'cluster-size': number
  readonly cost: Record<string, number>
  readonly bitmaps: readonly { name: string; granularity: number; flags: string[] }[]
  readonly steps?: readonly {
    step: string
    barrier?: string
    writes?: readonly {
      kind: string
      what: string
      offset?: number
      length?: number
      size?: number
      extents?: readonly { offset: number; length: number }[]
      clusters?: readonly { first: number; count: number }[]
      value?: number
    }[]
    extents?: readonly { offset: number; length: number }[]
  }[]
}

const edit = (...args: string[]) => tidemarkJson<EditJson>(['bitmap', ...args])

/** Name, flags and how many granules are dirty, as info tells them. */
async function state(file: string): Promise<Record<string, string>> {
  const info = await tidemarkJson<{
    'format-specific': {
      data: { bitmaps?: { name: string; flags: string[]; granularity: number; count: number }[] }
    }
  }>(['info', '--count', file])
  return Object.fromEntries(
    (info['format-specific'].data.bitmaps ?? []).map(({ name, flags, granularity, count }) => [
      name,
      [...flags, granularity, count].join(' '),
    ]),
  )
}

const before = { even: 'auto 65536 4', low: 'auto 65536 2', off: '4096 1' }

describe('what the arguments mean', () => {
  const cases: readonly (readonly [string, readonly string[], Record<string, string | undefined>])[] = [
    ['a new one', ['--add', 'FILE', 'b'], { b: 'auto 65536 0' }],
    ['a new one that does not record', ['--add', '--disable', 'FILE', 'b'], { b: '65536 0' }],
    ['of a granularity', ['--add', '-g', '4k', 'FILE', 'b'], { b: 'auto 4096 0' }],
    ['the last granularity counts', ['-g', '1M', '--add', '-g512', 'FILE', 'b'], { b: 'auto 512 0' }],
    ['granularity 0 is the default', ['--add', '-g', '0', 'FILE', 'b'], { b: 'auto 65536 0' }],
    ['a hexadecimal one', ['--add', '-g', '0x8000', 'FILE', 'b'], { b: 'auto 32768 0' }],
    ['options behind the names', ['FILE', 'b', '--add'], { b: 'auto 65536 0' }],
    ['options between the names', ['FILE', '--add', 'b', '-f', 'qcow2'], { b: 'auto 65536 0' }],
    ['a name like an option', ['--add', '--', 'FILE', '--clear'], { '--clear': 'auto 65536 0' }],
    ['removed', ['--remove', 'FILE', 'low'], { low: undefined }],
    ['cleared', ['--clear', 'FILE', 'even'], { even: 'auto 65536 0' }],
    ['disabled', ['--disable', 'FILE', 'even'], { even: '65536 4' }],
    ['enabled', ['--enable', 'FILE', 'off'], { off: 'auto 4096 1' }],
    ['the last of two counts', ['--enable', '--disable', 'FILE', 'low'], { low: '65536 2' }],
    ['and the other way round', ['--disable', '--enable', 'FILE', 'low'], {}],
    ['merged', ['--merge', 'low', 'FILE', 'even'], { even: 'auto 65536 5' }],
    ['merged from several', ['--merge=low', '--merge', 'off', 'FILE', 'even'], { even: 'auto 65536 6' }],
    ['merged with itself', ['--merge', 'even', 'FILE', 'even'], {}],
    ['cleared before a merge', ['--clear', '--merge', 'low', 'FILE', 'even'], { even: 'auto 65536 2' }],
    ['cleared after a merge', ['--merge', 'low', '--clear', 'FILE', 'even'], { even: 'auto 65536 0' }],
    [
      'cleared between two merges',
      ['--merge', 'low', '--clear', '--merge', 'off', 'FILE', 'even'],
      { even: 'auto 65536 1' },
    ],
    ['a new one with what others have', ['--add', '--merge', 'even', 'FILE', 'b'], { b: 'auto 65536 4' }],
    ['one that has gone again', ['--add', '--remove', 'FILE', 'b'], {}],
    ['a new one of the same name', ['--remove', '--add', '-g', '4k', 'FILE', 'low'], { low: 'auto 4096 0' }],
    ['another name', ['--rename', 'x', 'FILE', 'low'], { low: undefined, x: 'auto 65536 2' }],
    [
      'the old name is free then',
      ['--disable', '--rename', 'x', '--add', 'FILE', 'low'],
      { low: 'auto 65536 0', x: '65536 2' },
    ],
    [
      'from itself under another name',
      ['--rename', 'x', '--add', '--merge', 'x', 'FILE', 'low'],
      { low: 'auto 65536 2', x: 'auto 65536 2' },
    ],
  ]
  it.each(cases)('%s', async (_, args, change) => {
    const file = image()
    const result = await tidemark(['bitmap', ...args.map(arg => (arg === 'FILE' ? file : arg))])
    expect(result).toEqual({ status: 0, stdout: '', stderr: '' })
    const wanted = Object.fromEntries(
      Object.entries({ ...before, ...change }).filter(([, value]) => value !== undefined),
    )
    expect(await state(file)).toEqual(wanted)
  })

  it('another image, the same one by another name, one without bitmaps', async () => {
    const file = image()
    const other = image({ bitmaps: [{ name: 'far', dirty: [100, 101, 102] }] })
    expect(
      await tidemark(['bitmap', '--merge', 'far', '-b', other, '-F', 'qcow2', file, 'even']),
    ).toMatchObject({
      status: 0,
    })
    expect(await state(file)).toMatchObject({ even: 'auto 65536 7' })
    symlinkSync(file, `${file}-soft`)
    linkSync(file, `${file}-hard`)
    for (const same of [`${dir.path}/./${file.split('/').at(-1)}`, `${file}-soft`, `${file}-hard`]) {
      expect(await tidemark(['bitmap', '--add', '--merge', 'even', '-b', same, file, same])).toMatchObject({
        status: 0,
      })
      expect(await state(file)).toMatchObject({ [same]: 'auto 65536 7' })
    }
    const none = image({ bitmaps: [] })
    await edit('--add', '--merge', 'even', '-b', file, none, 'first')
    expect(await state(none)).toEqual({ first: 'auto 65536 7' })
    await edit('--remove', none, 'first')
    expect(await state(none)).toEqual({})
  })
})

describe('what cannot be done is told, and leaves no trace', () => {
  const long = 'n'.repeat(1024)
  const inUse: Qcow2Spec = { bitmaps: [...bitmaps, { name: 'torn', flags: 3, dirty: [1] }] }
  type Head = readonly [what: string, spec: Qcow2Spec, args: readonly string[], code: string, text: string]
  type Case = readonly [...Head, status: number]
  const failing: readonly (Head | Case)[] = [
    ['no such bitmap', {}, ['--clear', 'FILE', 'nobody'], 'bitmap-missing', "no bitmap 'nobody'"],
    ['no such source', {}, ['--merge', 'nobody', 'FILE', 'even'], 'bitmap-missing', "no bitmap 'nobody'"],
    ['there already', {}, ['--add', 'FILE', 'even'], 'bitmap-exists', "a bitmap 'even' already"],
    ['the new name is taken', {}, ['--rename', 'low', 'FILE', 'even'], 'bitmap-exists', "'low' already"],
    ['a name too long', {}, ['--add', 'FILE', long], 'bitmap-invalid', 'at most 1023 bytes'],
    ['an empty new name', {}, ['--rename', '', 'FILE', 'even'], 'bitmap-invalid', 'at least one byte'],
    [
      'the last action of many',
      {},
      ['--clear', '--merge', 'low', '--rename', 'x', '--disable', 'FILE', 'even'],
      'bitmap-missing',
      "no bitmap 'even'",
    ],
    ['an inconsistent one', inUse, ['--clear', 'FILE', 'torn'], 'bitmap-inconsistent', 'can only be removed'],
    ['an inconsistent source', inUse, ['--merge', 'torn', 'FILE', 'even'], 'bitmap-inconsistent', "'torn'"],
    [
      'a disk of another size',
      {},
      ['--merge', 'even', '-b', 'OTHER', 'FILE', 'even'],
      'disk-size-differs',
      `${32 * MiB} bytes`,
    ],
    ['no such image', {}, ['--add', '/nowhere/x', 'b'], 'image-missing', '/nowhere/x'],
    [
      'no such source image',
      {},
      ['--merge', 'a', '-b', '/nowhere/x', 'FILE', 'low'],
      'image-missing',
      '/nowhere',
    ],
    ['a folder', {}, ['--add', dir.path, 'b'], 'read-failed', 'a directory'],
    ['not qcow2', {}, ['--add', bin, 'b'], 'not-qcow2', ''],
    ['a source that is not qcow2', {}, ['--merge', 'even', '-b', bin, 'FILE', 'low'], 'not-qcow2', ''],
    ['version 2', { version: 2, bitmaps: [] }, ['--add', 'FILE', 'b'], 'cannot-edit', 'qemu-img amend'],
    [
      'marked corrupt',
      { incompatibleFeatures: 2n },
      ['--add', 'FILE', 'b'],
      'cannot-edit',
      'qemu-img check -r all',
    ],
    [
      'lazy refcounts not written',
      { incompatibleFeatures: 1n, compatibleFeatures: 1n },
      ['--add', 'FILE', 'b'],
      'cannot-edit',
      'qemu-img check -r all',
    ],
    [
      'stale bitmaps',
      { bitmapsConsistent: false },
      ['--add', 'FILE', 'b'],
      'cannot-edit',
      'qemu-img check -r leaks',
    ],
    [
      'a source of stale bitmaps',
      {},
      ['--merge', 'even', '-b', 'STALE', 'FILE', 'low'],
      'bitmaps-stale',
      'are stale',
    ],
    [
      'what nobody knows',
      { incompatibleFeatures: 1n << 40n },
      ['--add', 'FILE', 'b'],
      'unsupported-feature',
      '40',
      63,
    ],
    [
      'extra data',
      { bitmaps: [...bitmaps, { name: 'extra', flags: 6, extraData: new Uint8Array(8) }] },
      ['--clear', 'FILE', 'extra'],
      'bitmap-invalid',
      "bitmap 'extra' of",
    ],
  ]
  const cases: readonly Case[] = failing.map(each => (each.length === 6 ? each : [...each, 1]))
  it.each(cases)('%s', async (_, spec, args, code, text, status) => {
    const file = image(spec)
    const other = image({ virtualSize: 32 * MiB })
    const stale = image({ bitmapsConsistent: false })
    const names: Record<string, string> = { FILE: file, OTHER: other, STALE: stale }
    const words = args.map(arg => names[arg] ?? arg)
    const hashes = [file, other, stale, bin].map(hash)
    const { size, mtimeMs } = statSync(file)
    for (const more of [[], ['--dry-run']]) {
      const { error, ...result } = await tidemarkError(['bitmap', ...more, ...words])
      expect({ ...result, code: error.code }, error.message).toEqual({ status, code })
      expect(error.message).toContain(text)
    }
    const human = await tidemark(['bitmap', ...words])
    expect(human).toMatchObject({ status, stdout: '' })
    expect(human.stderr).toMatch(/^error: [^\n]+\n$/)
    expect([file, other, stale, bin].map(hash)).toEqual(hashes)
    expect(statSync(file)).toMatchObject({ size, mtimeMs })
  })

  it('an in-use bitmap can be removed, and others beside it edited', async () => {
    const file = image(inUse)
    await edit('--merge', 'low', file, 'even')
    const { bitmaps: after } = await edit('--remove', file, 'torn')
    expect(after.map(({ name }) => name)).toEqual(['even', 'low', 'off'])
    expect(await state(file)).toMatchObject({ even: 'auto 65536 5' })
  })

  it('names from the command line do not reach the terminal as they are', async () => {
    const { stderr } = await tidemark(['bitmap', '--clear', image(), 'a\u001b[31mb'])
    expect(stderr).toContain("no bitmap 'a\\x1b[31mb'")
  })
})

describe('a dry run', () => {
  const args = ['--merge', 'low', '--merge', 'off', '--rename', 'all', '--add', '-g', '4k']

  it('changes nothing, and tells in JSON all that is written then', async () => {
    const file = image()
    const old = readFileSync(file)
    const { mtimeMs } = statSync(file)
    const plan = await edit('--dry-run', ...args, file, 'even')
    expect(readFileSync(file).equals(old)).toBe(true)
    expect(statSync(file).mtimeMs).toBe(mtimeMs)

    const done = await edit(...args, file, 'even')
    const { steps, ...rest } = plan
    expect(rest).toEqual({ ...done, 'dry-run': true })
    expect(done).not.toHaveProperty('steps')
    expect(steps!.map(({ step, barrier }) => [step, barrier])).toEqual([
      ['clusters', 'flush'],
      ['header', 'flush'],
      ['release', 'flush'],
      ['discard', undefined],
    ])
    const now = readFileSync(file)
    const writes = steps!.flatMap(step => step.writes ?? [])
    const grown = writes.find(({ kind }) => kind === 'grow')
    expect(grown?.size ?? old.length).toBe(now.length)
    expect(now.length - old.length).toBe(plan.cost.growth)

    // Every byte that is another one now is in a stretch of the plan, or a refcount of one of its clusters.
    const planned = new Uint8Array(now.length)
    const stretches = writes.flatMap(write =>
      write.extents !== undefined
        ? write.extents
        : write.offset === undefined
          ? []
          : [{ offset: write.offset, length: write.length! }],
    )
    for (const { offset, length } of [...stretches, ...steps!.at(-1)!.extents!]) {
      planned.fill(1, offset, offset + length)
    }
    const clusterSize = plan['cluster-size']
    const refcountTable = Number(now.readBigUInt64BE(48))
    const refcountBlock = Number(now.readBigUInt64BE(refcountTable))
    const counted = writes.filter(({ kind }) => kind === 'refcounts')
    for (const { clusters, value } of counted) {
      for (const { first, count } of clusters!) {
        for (let cluster = first; cluster < first + count; cluster++) {
          const at = refcountBlock + cluster * 2
          expect(now.readUInt16BE(at), `refcount of cluster ${cluster}`).toBe(value)
          planned.fill(1, at, at + 2)
        }
      }
    }
    const strays = [...planned.keys()].filter(i => planned[i] === 0 && now[i] !== (old[i] ?? 0))
    expect(strays).toEqual([])
    const sum = (value: number) =>
      counted
        .filter(each => each.value === value)
        .flatMap(({ clusters }) => clusters!)
        .reduce((total, { count }) => total + count, 0)
    expect([sum(1), sum(0)]).toEqual([plan.cost.allocated, plan.cost.freed])
    const written = stretches
      .filter(({ length }) => length >= clusterSize)
      .reduce((total, { length }) => total + length, 0)
    expect(written).toBe(plan.cost.allocated! * clusterSize)
  })

  it('tells people the same', async () => {
    const file = image()
    const old = hash(file)
    const { status, stdout, stderr } = await tidemark(['bitmap', '--dry-run', ...args, file, 'even'])
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(hash(file)).toBe(old)
    const lines = stdout.split('\n')
    expect(lines[0]).toBe(file)
    expect(lines[1]).toContain("bitmap 'even': merged 'low', merged 'off', renamed to 'all', added (4 KiB")
    expect(stdout.match(/── flush/g)).toHaveLength(3)
    for (const text of [
      /^1\. new clusters, which nothing refers to yet$/m,
      /^ {3}bits of 'all' +64 KiB {2}at \d+$/m,
      /^ {3}table of 'even' +64 KiB {2}at \d+$/m,
      /^ {3}bitmap directory +64 KiB {2}at \d+$/m,
      /^2\. the header: from here on the new bitmaps count$/m,
      /^3\. old clusters become free$/m,
      /^ {2}clusters taken +4 \(bits 1, tables 2, directory 1\)$/m,
      /^ {2}given back +3$/m,
      /^ {2}all +64 KiB {2}recording$/m,
      /^ {2}off +4 KiB {2}disabled$/m,
      /^ {2}even +4 KiB {2}recording$/m,
    ]) {
      expect(stdout).toMatch(text)
    }
  })

  it('of what changes nothing has no steps; neither is anything written then', async () => {
    const file = image()
    const old = hash(file)
    const { mtimeMs } = statSync(file)
    expect(await edit('--dry-run', '--enable', file, 'even')).toMatchObject({ steps: [] })
    await edit('--enable', '--merge', 'even', file, 'even')
    expect(hash(file)).toBe(old)
    expect(statSync(file).mtimeMs).toBe(mtimeMs)
  })

  it('needs no right to write', async () => {
    const user = process.getuid?.() === 0 ? { user: { uid: 65534, gid: 65534 } } : {}
    const open = tempDir(0o755)
    try {
      const file = open.file('readable.qcow2')
      copyFileSync(image(), file)
      await run('chmod', ['444', file])
      const options = { ...user, cwd: '/' }
      expect((await tidemark(['bitmap', '--dry-run', '--add', file, 'b'], options)).status).toBe(0)
      const { status, error } = await tidemarkError(['bitmap', '--add', file, 'b'], options)
      expect({ status, code: error.code }).toEqual({ status: 1, code: 'write-failed' })
    } finally {
      open.remove()
    }
  })
})

describe('what is told', () => {
  it('JSON', async () => {
    const file = image({ bitmaps: [] })
    expect(await edit('--add', '--disable', '-g', '1M', file, 'b')).toEqual({
      filename: file,
      bitmap: 'b',
      'dry-run': false,
      actions: [{ action: 'add', granularity: MiB }, { action: 'disable' }],
      'cluster-size': 65536,
      cost: {
        allocated: 2,
        freed: 0,
        data: 0,
        tables: 1,
        directory: 1,
        'refcount-structures': 0,
        growth: 2 * 65536,
      },
      bitmaps: [{ name: 'b', granularity: MiB, flags: [] }],
    })
    const other = image()
    expect((await edit('--merge', 'even', '-b', other, '--rename', 'c', file, 'b')).actions).toEqual([
      { action: 'merge', source: 'even', 'source-file': other },
      { action: 'rename', to: 'c' },
    ])
  })

  const script = programPath('script')
  it.skipIf(script === undefined)('a line for who sits at a terminal, nothing for others', async () => {
    const file = image()
    const onTerminal = async (...args: string[]) => {
      const line = [process.execPath, bin, 'bitmap', ...args].map(word => `'${word}'`).join(' ')
      return (await run('script', ['-qec', line, '/dev/null'], { env: plainEnv })).stdout
    }
    expect(await onTerminal('--add', file, 'b0')).toBe(
      "bitmap 'b0': added (64 KiB granularity); 2 clusters written, 1 given back\r\n",
    )
    expect(await onTerminal('--enable', file, 'b0')).toBe(
      "bitmap 'b0': enabled; nothing had to be written\r\n",
    )
  })
})

describe('where no lock can be had', () => {
  it('it refuses and says what helps; --unsafe-no-lock goes on, with a warning', async () => {
    const copy = tempDir()
    try {
      const folder = fileURLToPath(new URL('..', import.meta.url))
      await run('cp', ['-r', ...['package.json', 'bin', 'dist'].map(name => `${folder}${name}`), copy.path])
      const file = image()
      const old = hash(file)
      const alone = (...args: string[]) =>
        run(process.execPath, [copy.file('bin/tidemark.cjs'), 'bitmap', ...args], {
          accept: 'any',
          // pnpm's own scripts let everything be found everywhere.
          env: { ...plainEnv, NODE_PATH: undefined },
          cwd: copy.path,
        })
      const refused = await alone('--add', file, 'b', '--output', 'json')
      const { error } = JSON.parse(refused.stderr)
      expect({ status: refused.status, code: error.code }).toEqual({ status: 1, code: 'lock-unavailable' })
      expect(error.message).toContain(
        'Install koffi (npm install koffi), or give --unsafe-no-lock when no VM',
      )
      expect(hash(file)).toBe(old)
      expect(await alone('--dry-run', '--add', file, 'b')).toMatchObject({ status: 0, stderr: '' })
      expect(hash(file)).toBe(old)
      const unsafe = await alone('--unsafe-no-lock', '--add', file, 'b')
      expect(unsafe).toMatchObject({ status: 0, stdout: '' })
      expect(unsafe.stderr).toMatch(/^warning: no lock is held on .*koffi.*\n$/)
      expect(await state(file)).toEqual({ ...before, b: 'auto 65536 0' })
      // An image that is only read is looked at, as by the commands that read.
      const from = image()
      const merge = ['--unsafe-no-lock', '--merge', 'even', '-b', from, file, 'b']
      const writer = await openWritableFile(from)
      const held = await alone(...merge)
      expect([held.status, held.stderr]).toEqual([1, expect.stringContaining('has it open for writing')])
      await writer.close()
      expect(await alone(...merge)).toMatchObject({ status: 0 })
      expect(await state(file)).toEqual({ ...before, b: 'auto 65536 4' })
    } finally {
      copy.remove()
    }
  })

  it('where one can be had, --unsafe-no-lock takes it', async () => {
    const result = await tidemark(['bitmap', '--unsafe-no-lock', '--add', image(), 'b'])
    expect(result).toEqual({ status: 0, stdout: '', stderr: '' })
  })
})

describe('a file that ends within a cluster', () => {
  it('is edited as any other', async () => {
    // As QEMU leaves it: a table is written only as far as it has entries.
    const file = image({ bitmaps: [...bitmaps, { name: 'clear' }] })
    truncateSync(file, statSync(file).size - 65000)
    await edit('--add', '--merge', 'even', file, 'b')
    expect(await state(file)).toEqual({ ...before, clear: 'auto 65536 0', b: 'auto 65536 4' })
  })
})

describe('a signal', () => {
  it('ends what does not write at once; what writes is told', () => {
    const ended: number[] = []
    const interruption = new Interruption(status => ended.push(status))
    interruption.come(143)
    expect([ended, interruption.status]).toEqual([[143], 143])
    const later = new Interruption(status => ended.push(status))
    const signal = later.hold()
    expect([signal.aborted, later.status]).toEqual([false, undefined])
    later.come(130)
    later.come(143)
    expect([signal.aborted, later.status, ended]).toEqual([true, 130, [143]])
  })
})
