import { type BackupFacts, buildCheckpointTree, planBackup } from '@tidemark/planner'
import picocolors from 'picocolors'
import { expect, it } from 'vitest'
import { planToText } from '../src/render/plan-text.js'

it('names a file once, however many chained bitmaps lie in it', () => {
  const disk = { target: 'vda', type: 'file', device: 'disk', source: '/i/vda', format: 'qcow2' } as const
  const domain = {
    name: 'web',
    uuid: undefined,
    disks: [{ ...disk, readonly: false, backingStore: undefined }],
  }
  const names = ['cp1', 'cp2', 'cp3']
  const bitmaps = names.map(name => ({
    ...{ name, granularity: 65536, recording: name === 'cp3', inconsistent: false, corrupt: undefined },
  }))
  const image = { filename: '/i/vda', namedAs: '/i/vda', format: 'qcow2', problem: undefined, compat: '1.1' }
  const facts: BackupFacts = {
    domain,
    checkpoints: names.map((name, i) => ({
      ...{ name, description: undefined, parent: names[i - 1], creationTime: 1_700_000_000 + i },
      ...{ disks: undefined, domain },
    })),
    chains: new Map([
      ['vda', [{ ...image, virtualSize: 1 << 26, locked: false, bitmapsStale: false, bitmaps }]],
    ]),
  }
  const plan = planBackup(facts, { incremental: 'cp1' })
  expect(plan.disks[0]!.merge).toHaveLength(3)
  const text = planToText(plan, buildCheckpointTree(facts.checkpoints), picocolors.createColors(false), 100)
  expect(text).toMatch(/^ {2}vda +incremental .* vda$/m)
})
