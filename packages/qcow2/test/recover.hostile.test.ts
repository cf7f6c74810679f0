// A journal of anybody's making, and images that somebody had in hand between the crash and the recovery: an image is
// written to only where that is sure, and is sound in the end; what cannot be is an error with a code.
import { buildQcow2, Random } from '@tidemark/testkit'
import { describe, expect, it } from 'vitest'
import {
  type BitmapAction,
  editBitmaps,
  editImages,
  memoryStorage,
  Qcow2Error,
  recoverImages,
} from '../src/index.js'
import { encodeRecord, parseRecords, type RecordKind, recordKinds } from '../src/journal/records.js'
import { type Files, filesAfter, JOURNAL, RecordedFiles, severalStates } from './crash-several.js'
import { mustBeSound, readModel } from './edit-model.js'

const names = ['/x', '/y'] as const
const image = (more: object = {}) =>
  buildQcow2({
    virtualSize: 2 ** 20,
    clusterBits: 9,
    bitmaps: [{ name: 'a', granularityBits: 9, dirty: [0, 5, 1000] }],
    ...more,
  }).bytes
const actions: BitmapAction[] = [
  { action: 'add', name: 'new', granularity: 512 },
  { action: 'merge', name: 'new', source: 'a' },
  { action: 'disable', name: 'a' },
]
const full = new Qcow2Error('no-space', 'full')
const first: BitmapAction[] = [{ action: 'add', name: 'new', granularity: 512 }]

/** What is on the disks when an edit is cut off: `prepared` before it is decided, `decided`, after one image, after all. */
async function cutOff(
  images: readonly Uint8Array[] = [image(), image()],
  todo: readonly BitmapAction[] = actions,
): Promise<Record<'prepared' | 'decided' | 'half' | 'switched', Files>> {
  const files = new RecordedFiles(
    new Map([...names.map((name, i) => [name, images[i]!] as const), [JOURNAL, new Uint8Array()]]),
  )
  await editImages(
    names.map(filename => ({ storage: files.storage(filename), filename, actions: todo })),
    { journal: async () => files.journal() },
  )
  const flushes = files.log.flatMap(({ file, operation }, i) =>
    file === JOURNAL && operation === 'flush' ? [i + 1] : [],
  )
  const states = [...severalStates(files, new Random('all'), 0)].map(state => state.files)
  const decided = flushes[2]!
  const half =
    files.log.findIndex(({ file, operation }, i) => i > decided && file === '/x' && operation === 'flush') + 1
  return {
    prepared: states[decided - 3]!,
    decided: states[decided]!,
    half: states[half]!,
    switched: states[flushes[3]! - 3]!,
  }
}

const recover = async (files: Files, gone: readonly string[] = []) => {
  const recorded = new RecordedFiles(files)
  const outcome = await recoverImages(recorded.journal(), {
    async open(filename) {
      if (gone.includes(filename) || !files.has(filename)) throw new Qcow2Error('image-missing', filename)
      return recorded.storage(filename)
    },
  }).catch((error: Qcow2Error) => error)
  return { outcome, log: recorded.log, files: filesAfter(recorded) }
}

const plain = async (files: Files, name: string) =>
  JSON.stringify([...(await readModel(memoryStorage(files.get(name)!)))])

async function journalOf(files: Files): Promise<Partial<Record<RecordKind, string>>> {
  return (await parseRecords(files.get(JOURNAL)!, JOURNAL)).payloads
}

async function withJournal(files: Files, records: Partial<Record<RecordKind, string>>): Promise<Files> {
  const parts: Uint8Array[] = []
  for (const kind of recordKinds) {
    if (records[kind] !== undefined) parts.push(await encodeRecord(kind, records[kind]))
  }
  return new Map([...files, [JOURNAL, new Uint8Array(Buffer.concat(parts))]])
}

describe('where a journal is what it was', () => {
  it.each([
    ['prepared', 'back'],
    ['decided', 'forward'],
    ['half', 'forward'],
    ['switched', 'forward'],
  ] as const)('%s: %s', async (when, outcome) => {
    const states = await cutOff()
    const { files, outcome: found } = await recover(states[when])
    expect(found).toMatchObject({ outcome })
    const wanted = await plain(outcome === 'back' ? states.prepared : states.switched, '/x')
    for (const name of names) expect(await plain(files, name)).toBe(wanted)
    expect(files.has(JOURNAL)).toBe(false)
  })

  it('a journal that has no room for a word more: the images are ended all the same, and it goes', async () => {
    for (const [when, outcome] of [
      ['prepared', 'back'],
      ['half', 'forward'],
    ] as const) {
      for (const call of ['resize', 'writeFrom', 'flush'] as const) {
        const recorded = new RecordedFiles((await cutOff())[when])
        const journal = recorded.journal()
        const storage = { ...journal.storage, size: journal.storage.size, [call]: () => Promise.reject(full) }
        const open = async (filename: string) => recorded.storage(filename)
        expect(await recoverImages({ ...journal, storage }, { open })).toMatchObject({ outcome })
        const files = filesAfter(recorded)
        expect(files.has(JOURNAL)).toBe(false)
        for (const name of names) await mustBeSound(files.get(name)!)
      }
    }
  })

  it('a journal that cannot be removed: the images are done, and that is said', async () => {
    for (const [when, outcome] of [
      ['prepared', 'back'],
      ['half', 'forward'],
    ] as const) {
      const recorded = new RecordedFiles((await cutOff())[when])
      const journal = recorded.journal()
      const stuck = {
        storage: journal.storage,
        remove: () => Promise.reject(new Qcow2Error('write-failed', 'no')),
      }
      const open = async (filename: string) => recorded.storage(filename)
      const recovery = recoverImages(stuck, { open })
      await expect(recovery).rejects.toMatchObject({
        code: 'write-failed',
        message: `no; the edit is ${outcome === 'back' ? 'undone' : 'completed'} all the same: rm ${JOURNAL}`,
        details: { done: true, outcome, journal: JOURNAL },
      })
      // And again, as often as one likes.
      expect(await recoverImages(journal, { open })).toMatchObject({ outcome })
    }
  })

  it('a dry run tells the same, and writes nothing', async () => {
    for (const files of Object.values(await cutOff())) {
      const recorded = new RecordedFiles(files)
      const open = async (filename: string) => recorded.storage(filename)
      const dry = await recoverImages(recorded.journal(), { open, dryRun: true })
      expect(recorded.log).toEqual([])
      expect(dry).toEqual((await recover(files)).outcome)
    }
  })
})

/** As QEMU leaves it that opened it for writing: the mark is gone. */
function opened(files: Files, name: string): Files {
  const bytes = files.get(name)!.slice()
  bytes[88] = 0
  return new Map([...files, [name, bytes]])
}

describe('somebody was there between the crash and the recovery', () => {
  it('before the edit was decided: all go back, whatever became of one of them', async () => {
    const { prepared } = await cutOff()
    const other = new Map([...prepared, ['/y', image({ bitmaps: [] })]] as const)
    for (const [files, gone, found] of [
      [opened(prepared, '/y'), [], 'old'],
      [other, [], 'changed'],
      [prepared, ['/y'], 'missing'],
    ] as const) {
      const { outcome, files: after } = await recover(files, gone)
      expect(outcome).toMatchObject({ outcome: 'back', images: [{ found: 'prepared' }, { found }] })
      expect(after.has(JOURNAL)).toBe(false)
      expect(await plain(after, '/x')).toBe(await plain(prepared, '/x'))
      if (found !== 'old') expect(after.get('/y')).toEqual(files.get('/y'))
    }
  })

  it('an image that is not switched and was opened: the others go back', async () => {
    const { half, prepared } = await cutOff([image(), image()])
    const { outcome, files } = await recover(opened(half, '/y'))
    expect(outcome).toMatchObject({ outcome: 'back', images: [{ found: 'switched' }, { found: 'old' }] })
    for (const name of names) {
      expect(await plain(files, name)).toBe(await plain(prepared, name))
      await mustBeSound(files.get(name)!)
    }
  })

  it('a first bitmap is not added behind the back of who has written since', async () => {
    const none = () => image({ bitmaps: [] })
    const { decided } = await cutOff([none(), none()], first)
    // Guest data in clusters that there are: nothing but the mark tells.
    const { outcome, files } = await recover(opened(decided, '/y'))
    expect(outcome).toMatchObject({ outcome: 'back' })
    for (const name of names) expect(await plain(files, name)).toBe('[]')
  })

  it('what was prepared is damaged: the others go back; where they cannot, nothing is touched', async () => {
    const { half, prepared } = await cutOff()
    const bytes = half.get('/y')!.slice()
    // A bit of a bitmap, in the last of the new clusters that are bits.
    const records = JSON.parse((await journalOf(half)).images!) as { images: { taken: [number, number][] }[] }
    bytes[records.images[1]!.taken[0]![0] * 512] = 0x55
    const damaged = new Map([...half, ['/y', bytes]] as const)
    const { outcome, files } = await recover(damaged)
    expect(outcome).toMatchObject({ outcome: 'back' })
    for (const name of names) expect(await plain(files, name)).toBe(await plain(prepared, name))

    const stuck = await recover(opened(damaged, '/x'))
    expect(stuck.log).toEqual([])
    expect(stuck.outcome).toMatchObject({
      code: 'recovery-impossible',
      details: { images: [{ state: 'new' }, { state: 'prepared' }] },
    })
  })

  it('one is missing, replaced or was written to: nothing is touched, and each is named', async () => {
    const { half } = await cutOff()
    const replaced = new Map([...half, ['/y', image({ virtualSize: 2 ** 19, bitmaps: [] })]] as const)
    for (const [files, gone, state] of [
      [half, ['/y'], 'missing'],
      [replaced, [], 'changed'],
    ] as const) {
      const { outcome, log } = await recover(files, gone)
      expect(log).toEqual([])
      expect(outcome).toMatchObject({
        code: 'recovery-impossible',
        message: expect.stringMatching(/\/x: has its new bitmaps.*\/y: .*qemu-img check -r leaks/s),
        details: { images: [{ state: 'switched' }, { state }] },
      })
    }
  })

  it('when all had gone forward, it does not matter any more', async () => {
    const { switched } = await cutOff()
    const records = await journalOf(switched)
    expect(Object.keys(records)).toEqual(['begin', 'images', 'commit'])
    const done = await withJournal(switched, { ...records, done: '{"direction":"forward"}' })
    const { outcome, files } = await recover(done, ['/y'])
    expect(outcome).toMatchObject({
      outcome: 'forward',
      images: [{ found: 'switched' }, { found: 'missing' }],
    })
    expect(await plain(files, '/x')).toBe(await plain(switched, '/x'))
  })

  it('an edit of one image meanwhile is refused', async () => {
    const { decided } = await cutOff()
    const marked = new RecordedFiles(decided)
    await expect(editBitmaps(marked.storage('/x'), first)).rejects.toMatchObject({ code: 'cannot-edit' })
    expect(marked.log).toEqual([])
  })
})

describe('a journal that is not whole', () => {
  const state = cutOff()
  it.each([
    ['empty', new Uint8Array()],
    ['a sector that was not written', new Uint8Array(512)],
  ])('%s: nothing was written, and it goes', async (_, journal) => {
    const { files, outcome } = await recover(new Map([...(await state).prepared, [JOURNAL, journal]]))
    expect(outcome).toEqual({ outcome: 'nothing', images: [] })
    expect(files.has(JOURNAL)).toBe(false)
  })

  it('cut anywhere: the record that is not whole does not count', async () => {
    const { decided, prepared } = await state
    const journal = decided.get(JOURNAL)!
    const seen = new Set<string>()
    for (let length = 0; length <= journal.byteLength; length += 37) {
      const files = new Map([...prepared, [JOURNAL, journal.slice(0, length)]] as const)
      const { outcome } = await recover(files)
      seen.add(outcome instanceof Qcow2Error ? outcome.code : outcome.outcome)
    }
    expect([...seen].sort()).toEqual(['back', 'forward', 'journal-invalid', 'nothing'])
  })

  it.each([
    ['text', new TextEncoder().encode('{"images":[]}')],
    ['zeros', new Uint8Array(4096)],
    ['an image', image()],
  ])('%s: no journal, and it stays', async (_, journal) => {
    const files = new Map([...(await state).prepared, [JOURNAL, new Uint8Array(journal)]] as const)
    const { outcome, log } = await recover(files)
    expect(outcome).toMatchObject({ code: 'journal-invalid' })
    expect(log).toEqual([])
  })

  it('a record that is missing before the last: damaged, and nothing is touched', async () => {
    const { decided } = await state
    for (const at of [0, 600]) {
      const journal = decided.get(JOURNAL)!.slice()
      journal[at]! ^= 1
      const { outcome, log } = await recover(new Map([...decided, [JOURNAL, journal]]))
      expect(outcome, String(at)).toMatchObject({ code: 'journal-invalid' })
      expect(log).toEqual([])
    }
  })
})

describe('a journal of somebody who means harm', () => {
  it('with another content under right checksums: images stay sound, their bitmaps old or new', async () => {
    const states = await cutOff()
    const wanted = await Promise.all([states.prepared, states.switched].map(files => plain(files, '/x')))
    const random = new Random('hostile journal')
    const seen: Record<string, number> = {}
    for (let round = 0; round < 200; round++) {
      const files = states[random.pick(['prepared', 'decided', 'half', 'switched'] as const)]
      const records = await journalOf(files)
      const changed = mutated(records, random)
      const { outcome, files: after } = await recover(await withJournal(files, changed))
      if (outcome instanceof Error && !(outcome instanceof Qcow2Error)) throw outcome
      const key = outcome instanceof Qcow2Error ? outcome.code : outcome.outcome
      seen[key] = (seen[key] ?? 0) + 1
      for (const name of names) {
        const bytes = after.get(name)!
        const what = `round ${round}: ${JSON.stringify(changed).slice(0, 600)}`
        expect(wanted, what).toContain(await plain(after, name))
        await mustBeSound(bytes)
      }
    }
    expect(Object.keys(seen).sort(), JSON.stringify(seen)).toEqual(
      expect.arrayContaining(['back', 'forward', 'journal-invalid', 'recovery-impossible']),
    )
  })

  it('that gives away clusters which are somebody’s, or the whole file', async () => {
    const { prepared } = await cutOff()
    const records = await journalOf(prepared)
    const content = JSON.parse(records.images!)
    for (const each of content.images) each.released = [[1, 2 ** 43]]
    const { files, outcome } = await recover(
      await withJournal(prepared, { ...records, images: JSON.stringify(content) }),
    )
    expect(outcome).toMatchObject({ outcome: 'back' })
    for (const name of names) await mustBeSound(files.get(name)!)
  })

  it('that names one image twice, a relative one, or none', async () => {
    const { decided } = await cutOff()
    const records = await journalOf(decided)
    for (const change of [
      (content: { images: { filename: string }[] }) => (content.images[1]!.filename = '/x'),
      (content: { images: { filename: string }[] }) => (content.images[1]!.filename = 'y'),
      (content: { images: { filename: string }[] }) => (content.images = []),
    ]) {
      const content = JSON.parse(records.images!)
      change(content)
      const { outcome, log } = await recover(
        await withJournal(decided, { ...records, images: JSON.stringify(content) }),
      )
      expect(outcome).toMatchObject({ code: 'journal-invalid' })
      expect(log).toEqual([])
    }
  })
})

/** One value somewhere in it is another one. */
function mutated(
  records: Partial<Record<RecordKind, string>>,
  random: Random,
): Partial<Record<RecordKind, string>> {
  const kinds = recordKinds.filter(kind => kind !== 'begin' && records[kind] !== undefined)
  const kind = random.pick(kinds)
  if (random.bool(0.05))
    return { ...records, done: random.pick(['{"direction":"back"}', '{"direction":"forward"}', '{}']) }
  if (random.bool(0.05)) return { ...records, [kind]: undefined }
  const content = JSON.parse(records[kind]!) as unknown
  const places: [Record<string, unknown>, string][] = []
  const collect = (value: unknown): void => {
    if (typeof value !== 'object' || value === null) return
    for (const key of Object.keys(value)) {
      places.push([value as Record<string, unknown>, key])
      collect((value as Record<string, unknown>)[key])
    }
  }
  collect(content)
  const [holder, key] = random.pick(places)
  const old = holder[key]
  if (typeof old === 'number')
    holder[key] = random.pick([0, 1, -1, old + 1, old - 1, old * 2, old + 512, 2 ** 53, 0.5])
  else if (typeof old === 'string' && old.length > 0) {
    const at = random.int(0, old.length - 1)
    holder[key] = old.slice(0, at) + random.pick(['0', '1', 'f', 'g', '']) + old.slice(at + 1)
  } else holder[key] = random.pick([null, [], {}, 'x', 7])
  return { ...records, [kind]: JSON.stringify(content) }
}
