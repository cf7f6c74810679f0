/** Small facts to plan over: one domain, its checkpoints and chains, each with what a test wants different. */
import type {
  BackupFacts,
  BitmapFacts,
  CheckpointFacts,
  DomainDisk,
  DomainFacts,
  LayerFacts,
} from '../src/index.js'

export const MiB = 1024 * 1024

export function bitmap(name: string, change: Partial<BitmapFacts> = {}): BitmapFacts {
  return { name, granularity: 65536, recording: true, inconsistent: false, corrupt: undefined, ...change }
}

export function layer(
  filename: string,
  bitmaps: readonly (string | BitmapFacts)[],
  change: Partial<LayerFacts> = {},
): LayerFacts {
  return {
    filename,
    namedAs: filename,
    format: 'qcow2',
    problem: undefined,
    virtualSize: 64 * MiB,
    compat: '1.1',
    locked: false,
    bitmapsStale: false,
    bitmaps: bitmaps.map(entry => (typeof entry === 'string' ? bitmap(entry) : entry)),
    ...change,
  }
}

export function disk(
  target: string,
  source: string | undefined,
  change: Partial<DomainDisk> = {},
): DomainDisk {
  return {
    target,
    type: 'file',
    device: 'disk',
    source,
    format: 'qcow2',
    readonly: false,
    backingStore: undefined,
    ...change,
  }
}

export function domain(disks: readonly DomainDisk[], name = 'web'): DomainFacts {
  return { name, uuid: undefined, disks }
}

export function checkpoint(name: string, change: Partial<CheckpointFacts> = {}): CheckpointFacts {
  return {
    name,
    description: undefined,
    parent: undefined,
    creationTime: 1_700_000_000,
    disks: undefined,
    domain: undefined,
    ...change,
  }
}

/** One disk vda at /images/vda.qcow2, one checkpoint cp1 that recorded it just so. */
export function simpleFacts(chain: readonly LayerFacts[], change: Partial<BackupFacts> = {}): BackupFacts {
  const vda = disk('vda', chain[0]?.namedAs ?? '/images/vda.qcow2')
  const then = disk('vda', chain.at(-1)?.namedAs ?? '/images/vda.qcow2')
  return {
    domain: domain([vda]),
    checkpoints: [checkpoint('cp1', { domain: domain([then]) })],
    chains: new Map([['vda', chain]]),
    ...change,
  }
}
