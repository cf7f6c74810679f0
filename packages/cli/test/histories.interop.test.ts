// Random histories of domains in a real libvirt. After each step libvirt's verdict on an incremental backup since every
// checkpoint is the plan's, what it copies is the plan's merge list, and what the plan calls incremental restores the
// disk to the byte. Plans are made from QEMU's own words while the domain runs, and from its files while it is off.
//
// TIDEMARK_LONG=MINUTES goes on for so long, from a seed of its own; TIDEMARK_SEED=SEED does one history again.
import { LibvirtLab, needs } from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Coverage } from './histories/coverage.js'
import { runHistory } from './histories/history.js'
import { offlineSteps } from './histories/offline.js'
import { liveSteps } from './histories/steps.js'

const minutes = Number(process.env.TIDEMARK_LONG ?? 0)
const only = process.env.TIDEMARK_SEED
const HISTORIES = 60
/** QEMUs start and end for most of the time: several at once keep two cores busy. */
const AT_ONCE = 6

/** As many daemons may die but one. */
const LABS = 4

const TRAPS = ['bitmap-missing', 'disk-source-changed']

const reasons = [
  ...['bitmap-disabled', 'bitmap-gap', 'bitmap-inconsistent', 'bitmap-missing', 'bitmap-subset-violated'],
  ...['bitmaps-stale', 'disk-excluded', 'disk-not-in-checkpoint', 'disk-resized', 'disk-source-changed'],
  ...['disk-target-changed (note)', 'layer-size-differs', 'not-qcow2'],
  ...['checkpoint-branched (note)', 'disk-was-away (note)'],
]

const peers = needs('libvirt', 'xmllint')
describe.skipIf(peers.skip)(`random histories in a real libvirt${peers.label}`, () => {
  /** The last one is in use; one before it has lost its daemon. */
  const labs: LibvirtLab[] = []
  const coverage = new Coverage()
  beforeAll(async () => {
    labs.push(await LibvirtLab.start())
  })
  afterAll(async () => {
    for (const lab of labs) await lab.stop()
  })

  let starting: Promise<void> | undefined
  /** Debian 12's libvirt daemon dies or hangs once in some hundred histories; what it said then is no answer. */
  const livingLab = async (): Promise<LibvirtLab> => {
    if (!labs.at(-1)!.alive && labs.length < LABS) {
      starting ??= LibvirtLab.start().then(lab => {
        labs.push(lab)
        starting = undefined
      })
      await starting
    }
    return labs.at(-1)!
  }

  it(
    'libvirt and the plan agree, and what is incremental restores the disk',
    async () => {
      const seeds = only !== undefined ? [only] : Array.from({ length: HISTORIES }, (_, i) => `ci-${i}`)
      const start = Date.now()
      const failures: string[] = []
      let told = 0
      const next = (): string | undefined => {
        if (only !== undefined || minutes === 0) return seeds[told++]
        return Date.now() - start < minutes * 60_000 ? `long-${start}-${told++}` : undefined
      }
      const worker = async (): Promise<void> => {
        for (let seed = next(); seed !== undefined; seed = next()) {
          const lab = await livingLab()
          await runHistory(lab, seed, coverage).catch(async error => {
            if (lab.alive || labs.length === LABS) failures.push(error.message)
            else
              await runHistory(await livingLab(), seed, coverage).catch(again => failures.push(again.message))
          })
        }
      }
      await Promise.all(Array.from({ length: AT_ONCE }, worker))
      if (minutes > 0 || only !== undefined)
        console.log(`${told} histories, ${labs.length} daemons\n${coverage}`)
      expect(failures.join('\n\n')).toBe('')
    },
    600_000 + minutes * 60_000,
  )

  // One history alone does not come across all, and of others nobody knows beforehand.
  it.runIf(only === undefined && minutes === 0)('every kind of step, verdict and reason came up', () => {
    const kinds = [...liveSteps, ...offlineSteps].map(({ kind }) => kind)
    const rare = [...kinds, 'crash', 'restart'].filter(kind => (coverage.steps.get(kind) ?? 0) < 3)
    expect(rare, `${coverage}`).toEqual([])
    const few = ['live', 'offline']
      .flatMap(when => ['accept', 'reject', 'incremental', 'full'].map(what => `${when} ${what}`))
      .filter(what => (coverage.verdicts.get(what) ?? 0) < 100)
    expect(few, `${coverage}`).toEqual([])
    // Without the plan these writes would have been lost.
    expect([...coverage.traps.keys()], `${coverage}`).toEqual(expect.arrayContaining(TRAPS))
    expect(
      reasons.filter(code => (coverage.reasons.get(code) ?? 0) < 2),
      `${coverage}`,
    ).toEqual([])
  })
})
