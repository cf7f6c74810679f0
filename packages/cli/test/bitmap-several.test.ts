// tidemark bitmap --multi and tidemark recover without QEMU: what a plan is, what is refused, and what is shown.
import { createHash } from 'node:crypto'
import {
  closeSync,
  existsSync,
  linkSync,
  openSync,
  readFileSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename } from 'node:path'
import { openWritableFile } from '@tidemark/qcow2/node'
import { type BitmapSpec, type Qcow2Spec, tempDir, writeQcow2 } from '@tidemark/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import { parsePlanFile } from '../src/bitmap/plan-file.js'
import { openEdits } from '../src/bitmap/several.js'
import { Output } from '../src/output.js'
import { bin, tidemark, tidemarkError, tidemarkJson } from './cli.js'

const dir = tempDir()
afterAll(() => dir.remove())
const MiB = 2 ** 20

let serial = 0
const bitmaps: readonly BitmapSpec[] = [
  { name: 'even', dirty: [0, 2, 4, 6] },
  { name: 'low', dirty: [0, 1] },
]
function image(spec: Qcow2Spec = {}): string {
  const file = dir.file(`i${serial++}.qcow2`)
  writeQcow2(file, { virtualSize: 64 * MiB, bitmaps, ...spec })
  return file
}
const hash = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex')
const journalOf = (file: string) => dir.file(`.${basename(file)}.tidemark-journal`)

type Entry = readonly [filename: string, ...actions: readonly Record<string, unknown>[]]
const planOf = (...entries: readonly Entry[]) =>
  JSON.stringify({ images: entries.map(([filename, ...actions]) => ({ filename, actions })) })
const several = (plan: string, ...args: string[]) =>
  tidemark(['bitmap', '--multi', '-', ...args], { input: plan })

async function counts(file: string): Promise<Record<string, number>> {
  const info = await tidemarkJson<{
    'format-specific': { data: { bitmaps?: { name: string; count: number }[] } }
  }>(['info', '--count', file])
  return Object.fromEntries((info['format-specific'].data.bitmaps ?? []).map(each => [each.name, each.count]))
}

describe('a plan', () => {
  const add = { action: 'add', name: 'cp1' }
  it('does all its actions on all its images, from a file and from standard input', async () => {
    const [a, b, c] = [image(), image({ bitmaps: [] }), image()]
    const other = image({ bitmaps: [{ name: 'far', dirty: [100, 101, 102] }] })
    const plan = planOf(
      [a, add, { action: 'merge', name: 'cp1', source: 'even' }, { action: 'disable', name: 'even' }],
      [b, { ...add, granularity: 4096, disabled: true }],
      [
        c,
        { action: 'merge', name: 'low', source: 'far', 'source-filename': other, 'source-format': 'qcow2' },
        { action: 'rename', name: 'even', to: 'odd' },
      ],
    )
    const file = dir.file('plan.json')
    writeFileSync(file, plan)
    expect(await tidemark(['bitmap', '--multi', file])).toEqual({ status: 0, stdout: '', stderr: '' })
    expect(await Promise.all([a, b, c].map(counts))).toEqual([
      { even: 4, low: 2, cp1: 4 },
      { cp1: 0 },
      { odd: 4, low: 5 },
    ])
    expect(existsSync(journalOf(a))).toBe(false)
    const removed = planOf([a, { action: 'remove', name: 'cp1' }], [b, { action: 'clear', name: 'cp1' }])
    expect(await several(removed)).toMatchObject({ status: 0 })
    expect(await counts(a)).toEqual({ even: 4, low: 2 })
  })

  it('names files relative to the folder that it runs in', async () => {
    const a = image()
    const plan = planOf([basename(a), add])
    const result = await tidemark(['bitmap', '--multi', '-'], { input: plan, cwd: dir.path })
    expect(result).toMatchObject({ status: 0 })
    expect(await counts(a)).toHaveProperty('cp1')
  })

  const place = 'images[1].actions[0]'
  const bad = (action: unknown) =>
    `{"images":[{"filename":"a","actions":[{"action":"add","name":"x"}]},{"filename":"b","actions":[${JSON.stringify(action)}]}]}`
  it.each([
    ['no JSON', '{', 'it is not JSON'],
    ['not UTF-8', new Uint8Array([0x22, 0xff, 0x22]), 'it is not JSON'],
    ['a list', '[]', '[] is not an object'],
    ['null', 'null', 'null is not an object'],
    ['no images', '{}', 'images: it is missing'],
    ['no image', '{"images":[]}', 'images: it is empty'],
    ['images that are none', '{"images":{}}', 'images: {} is not a list'],
    ['something else too', '{"images":[],"image":1}', "'image' is not known here; there are images"],
    ['no filename', '{"images":[{"actions":[]}]}', 'images[0].'],
    ['an empty filename', '{"images":[{"filename":"","actions":[1]}]}', 'images[0].'],
    ['no actions', '{"images":[{"filename":"a","actions":[]}]}', 'images[0].actions: it is empty'],
    ['an action that is none', bad('add'), `${place}: "add" is not an object`],
    [
      'an unknown action',
      bad({ action: 'ad', name: 'x' }),
      `${place}.action: "ad" is not one of add, remove`,
    ],
    [
      'an inherited name',
      bad({ action: 'constructor', name: 'x' }),
      `${place}.action: "constructor" is not one of`,
    ],
    ['no action', bad({ name: 'x' }), `${place}.action: nothing is not one of`],
    ['no name', bad({ action: 'clear' }), `${place}.name: it is missing`],
    ['an empty name', bad({ action: 'clear', name: '' }), `${place}.name: the name is empty`],
    ['a number for a name', bad({ action: 'clear', name: 1 }), `${place}.name: 1 is not a name`],
    ['NUL in a name', bad({ action: 'clear', name: 'a\0' }), `${place}.name: a name has no NUL`],
    [
      'a key of another action',
      bad({ action: 'clear', name: 'x', to: 'y' }),
      `${place}: 'to' is not known here`,
    ],
    ['no new name', bad({ action: 'rename', name: 'x' }), `${place}.to: it is missing`],
    ['no source', bad({ action: 'merge', name: 'x' }), `${place}.source: it is missing`],
    [
      'an odd granularity',
      bad({ action: 'add', name: 'x', granularity: 1000 }),
      `${place}.granularity: 1000 is not`,
    ],
    [
      'a granularity as text',
      bad({ action: 'add', name: 'x', granularity: '64k' }),
      `${place}.granularity: "64k"`,
    ],
    [
      'a word for a flag',
      bad({ action: 'add', name: 'x', disabled: 'no' }),
      `${place}.disabled: "no" is not true`,
    ],
    [
      'a raw source',
      bad({ action: 'merge', name: 'x', source: 'y', 'source-filename': 'z', 'source-format': 'raw' }),
      `${place}.source-format: "raw": only qcow2`,
    ],
    [
      'a format of nothing',
      bad({ action: 'merge', name: 'x', source: 'y', 'source-format': 'qcow2' }),
      `${place}.source-format: it is the format of source-filename`,
    ],
    [
      'two lists of images',
      `{"images":[{"filename":"a","actions":[{"action":"add","name":"x"}]}],
        "images":[{"filename":"b","actions":[{"action":"add","name":"x"}]}]}`,
      "line 2: 'images' is there twice",
    ],
    [
      'two names, one of them with an escape',
      '{"images":[{"filename":"a","actions":[{"action":"add","name":"x","n\\u0061me" : "y"}]}]}',
      "line 1: 'name' is there twice",
    ],
  ])('%s: refused, with the place', async (_, plan, text) => {
    const bytes = typeof plan === 'string' ? new TextEncoder().encode(plan) : plan
    expect(() => parsePlanFile(bytes, 'plan')).toThrow(text)
    expect(() => parsePlanFile(bytes, 'plan')).toThrow(expect.objectContaining({ code: 'usage' }))
  })

  it('takes what looks like a key for a name where it is one, and each object’s keys for its own', () => {
    const names = ['"name":', '{', '}', '\\', '\\"', '"', 'name']
    const actions = names.map(name => ({ action: 'rename', name, to: 'action' }))
    const images = [
      { filename: 'a', actions },
      { filename: 'b', actions },
    ]
    const pretty = new TextEncoder().encode(JSON.stringify({ images }, undefined, '\t'))
    expect(parsePlanFile(pretty, 'plan')).toEqual({ images })
  })

  it('is refused with status 64, as are arguments that are for one image', async () => {
    const a = image()
    const before = hash(a)
    const { status, error } = await tidemarkError(['bitmap', '--multi', '-'], { input: bad({}) })
    expect([status, error.code]).toEqual([64, 'usage'])
    expect(error.message).toContain(`standard input: ${place}.action`)
    const file = dir.file('p.json')
    writeFileSync(file, planOf([a, add]))
    for (const [args, text] of [
      [['--multi', file, a, 'x'], 'give no FILE'],
      [['--multi', file, '--add'], '--add is for one image'],
      [['--multi', file, '-g', '64k'], '-g is for one image'],
      [['--multi', file, '-b', a], '-b is for one image'],
      [['--multi', ''], 'the plan is empty'],
      [['--multi', file, '--journal', ''], 'the journal is empty'],
      [['--multi', file, '-U'], '-U is for --dry-run'],
      [['--multi', file, '--dry-run', '--unsafe-no-lock'], '--dry-run takes no lock'],
      [['--journal', file, '--add', a, 'x'], '--journal is for --multi'],
    ] as const) {
      const wrong = await tidemarkError(['bitmap', ...args])
      expect([wrong.status, wrong.error.message]).toEqual([64, expect.stringContaining(text)])
    }
    expect(hash(a)).toBe(before)
  })

  it('that cannot be read is an error', async () => {
    for (const [file, code] of [
      [dir.file('nowhere.json'), 'plan-unreadable'],
      [dir.path, 'plan-unreadable'],
    ] as const) {
      const { status, error } = await tidemarkError(['bitmap', '--multi', file])
      expect([status, error.code]).toEqual([1, code])
    }
  })
})

describe('what cannot be done leaves no trace in any image', () => {
  const add = { action: 'add', name: 'cp1' }
  const cases: readonly (readonly [string, (a: string, b: string) => Entry[], string])[] = [
    [
      'a wrong name in the last',
      (a, b) => [
        [a, add],
        [b, { action: 'clear', name: 'nobody' }],
      ],
      'bitmap-missing',
    ],
    [
      'an image that is missing',
      a => [
        [a, add],
        ['/nowhere/x', add],
      ],
      'image-missing',
    ],
    [
      'one that is none',
      a => [
        [a, add],
        [bin, add],
      ],
      'not-qcow2',
    ],
    [
      'the same twice',
      a => [
        [a, add],
        [a, add],
      ],
      'image-repeated',
    ],
    [
      'a symbolic link to it',
      a => [
        [a, add],
        [linkTo(a, symlinkSync), add],
      ],
      'image-repeated',
    ],
    [
      'a hard link to it',
      a => [
        [a, add],
        [linkTo(a, linkSync), add],
      ],
      'image-repeated',
    ],
    [
      'a name that is too long',
      a => [
        [a, add],
        [dir.file('x'.repeat(300)), add],
      ],
      'read-failed',
    ],
    [
      'a link to itself',
      a => {
        const loop = dir.file(`loop${serial++}`)
        symlinkSync(loop, loop)
        return [
          [a, add],
          [loop, add],
        ]
      },
      'read-failed',
    ],
    [
      'a merge from one that is edited too',
      (a, b) => [
        [a, add],
        [b, { action: 'merge', name: 'low', source: 'even', 'source-filename': a }],
      ],
      'image-repeated',
    ],
  ]
  function linkTo(file: string, make: (target: string, path: string) => void): string {
    const link = dir.file(`link${serial++}`)
    make(file, link)
    return link
  }
  it.each(cases)('%s', async (_, entries, code) => {
    const [a, b] = [image(), image()]
    const before = [a, b].map(hash)
    for (const more of [[], ['--dry-run']]) {
      const { status, error } = await tidemarkError(['bitmap', '--multi', '-', ...more], {
        input: planOf(...entries(a, b)),
      })
      expect([status, error.code], error.message).toEqual([1, code])
    }
    expect([a, b].map(hash)).toEqual(before)
    expect(existsSync(journalOf(a))).toBe(false)
  })

  it('a merge from the image itself by another name is one from itself', async () => {
    const a = image()
    const link = linkTo(a, symlinkSync)
    const plan = planOf([a, add, { action: 'merge', name: 'cp1', source: 'even', 'source-filename': link }])
    expect(await several(plan)).toMatchObject({ status: 0 })
    expect(await counts(a)).toMatchObject({ cp1: 4 })
  })

  it('a journal that is there already: its edit first, also for one image beside it', async () => {
    const [a, b] = [image(), image()]
    writeFileSync(journalOf(a), '')
    const before = [a, b].map(hash)
    for (const args of [
      ['--multi', '-'],
      ['--add', a, 'x'],
    ]) {
      const { status, error } = await tidemarkError(['bitmap', ...args], {
        input: planOf([a, add], [b, add]),
      })
      expect([status, error.code]).toEqual([1, 'journal-exists'])
      expect(error.message).toContain(`tidemark recover ${journalOf(a)}`)
    }
    const dry = await several(planOf([a, add], [b, add]), '--dry-run')
    expect(dry).toMatchObject({ status: 0, stderr: expect.stringContaining('tidemark recover') })
    expect([a, b].map(hash)).toEqual(before)
    const recovered = await tidemark(['recover', journalOf(a)])
    expect(recovered).toMatchObject({ status: 0, stdout: expect.stringContaining('had not begun') })
    expect(existsSync(journalOf(a))).toBe(false)
    const elsewhere = dir.file('journal')
    expect(await several(planOf([a, add], [b, add]), '--journal', elsewhere)).toMatchObject({ status: 0 })
    const nowhere = await tidemarkError(['bitmap', '--multi', '-', '--journal', '/nowhere/j'], {
      input: planOf([a, { action: 'remove', name: 'cp1' }]),
    })
    expect([nowhere.status, nowhere.error.code]).toEqual([1, 'write-failed'])
    expect(await counts(a)).toHaveProperty('cp1')
  })
})

describe.skipIf(process.platform !== 'linux')('the images', () => {
  it('are opened in one order, by whatever names: of two calls at once one gets them all', async () => {
    const [a, b] = [image(), image()]
    const held = await Promise.all([a, b].map(file => openWritableFile(file)))
    const refused: string[] = []
    for (const [first, second] of [
      [a, b],
      [b, a],
    ] as const) {
      const names = ['m', 'n'].map(name => dir.file(`${name}${serial++}`))
      linkSync(first, names[0]!)
      linkSync(second, names[1]!)
      const plan = planOf(...names.map(name => [name, { action: 'add', name: 'cp1' }] as const))
      const { error } = await tidemarkError(['bitmap', '--multi', '-'], { input: plan })
      expect(error.code, error.message).toBe('image-locked')
      refused.push(error.image === names[0] ? first : second)
    }
    expect(refused[0]).toBe(refused[1])
    for (const storage of held) await storage.close()
  })

  describe('named by a descriptor, which is another file in each process', () => {
    const opened = (file: string) => {
      const fd = openSync(file, 'r+')
      return { name: `/proc/${process.pid}/fd/${fd}`, close: () => closeSync(fd) }
    }
    const add = { action: 'add', name: 'cp1' } as const

    it('are noted by their own names, and the journal is beside them', async () => {
      const [a, b] = [image(), image()]
      const { name, close } = opened(a)
      const output = new Output('json')
      const plan = { images: [a, b].map(file => ({ filename: file === a ? name : file, actions: [add] })) }
      const { edits, close: closeEdits } = await openEdits(plan, { dryRun: true }, output)
      expect(edits.map(({ filename }) => filename)).toEqual([a, b])
      await closeEdits()
      const dry = await several(planOf([name, add], [b, add]), '--dry-run', '--output', 'json')
      expect(JSON.parse(dry.stdout)).toMatchObject({ journal: journalOf(a) })
      writeFileSync(journalOf(a), '')
      expect((await tidemarkError(['bitmap', '--add', name, 'cp1'])).error.code).toBe('journal-exists')
      close()
    })

    it('are refused where the file has no name any more; alone one is edited all the same', async () => {
      const [a, b] = [image(), image()]
      const { name, close } = opened(a)
      unlinkSync(a)
      const before = hash(b)
      const { status, error } = await tidemarkError(['bitmap', '--multi', '-'], {
        input: planOf([b, add], [name, add]),
      })
      expect([status, error.code], error.message).toEqual([1, 'image-unnamed'])
      expect([hash(b), existsSync(journalOf(b))]).toEqual([before, false])
      expect(await tidemark(['bitmap', '--add', name, 'cp1'])).toMatchObject({ status: 0 })
      close()
    })
  })
})

describe('a dry run', () => {
  it('tells of all images, in text and JSON, and changes nothing', async () => {
    const [a, b] = [image(), image({ bitmaps: [] })]
    const before = [a, b].map(file => [hash(file), statSync(file).mtimeMs])
    const plan = planOf(
      [a, { action: 'add', name: 'cp1' }, { action: 'remove', name: 'low' }],
      [b, { action: 'add', name: 'cp\u001b[31m1' }],
    )
    const { status, stdout } = await several(plan, '--dry-run')
    expect(status).toBe(0)
    expect(stdout).toContain('add cp1, remove low')
    expect(stdout).toContain('add cp\\x1b[31m1')
    expect(stdout).toMatch(/\d bytes at \d+/)
    expect(stdout.match(/the image is marked: /g)).toHaveLength(2)
    const json = await tidemarkJson<{
      'dry-run': boolean
      journal: string
      images: {
        filename: string
        actions: unknown[]
        steps: { step: string }[]
        cost: Record<string, number>
      }[]
    }>(['bitmap', '--multi', '-', '--dry-run'], { input: plan })
    expect(json).toMatchObject({
      'dry-run': true,
      journal: journalOf(a),
      images: [{ filename: a }, { filename: b }],
    })
    expect(json.images[0]!.steps.map(({ step }) => step)).toEqual([
      'clusters',
      'mark',
      'header',
      'unmark',
      'release',
      'discard',
    ])
    expect([a, b].map(file => [hash(file), statSync(file).mtimeMs])).toEqual(before)
    const done = await tidemarkJson<{ images: { steps?: unknown }[] }>(['bitmap', '--multi', '-'], {
      input: plan,
    })
    expect(done.images.map(each => each.steps)).toEqual([undefined, undefined])
  })
})

describe('recover', () => {
  it.each([
    ['none', () => dir.file('none'), 'journal-missing'],
    ['a folder', () => dir.path, 'read-failed'],
    ['an image', () => image(), 'journal-invalid'],
  ] as const)('%s is no journal', async (_, file, code) => {
    const journal = file()
    for (const more of [[], ['--dry-run']]) {
      const { status, error } = await tidemarkError(['recover', journal, ...more])
      expect([status, error.code], error.message).toEqual([1, code])
    }
  })
})
