import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  discard,
  type LayerFacts,
  layerOfNode,
  merge,
  type NamedNode,
  operationActions,
  type Place,
  parseNamedNodes,
} from '../src/index.js'
import { layer } from './facts.js'
import { CASES, casesNote, haveCases, readCase } from './libvirt-cases.js'

const nodeNames = [1, 2, 3, 4, 5].map(n => `libvirt-${n}-format`)

function readNodes(name: string): ReadonlyMap<string, NamedNode> {
  return parseNamedNodes(JSON.parse(readCase('qemublocktestdata', 'bitmap', `${name}.json`)))
}

/** Five layers. libvirt's delete counts bitmaps that are in no image too: `transient` keeps them. */
function readLayers(name: string, transient = false): LayerFacts[] {
  const nodes = readNodes(name)
  return nodeNames.map(nodeName => {
    const node = nodes.get(nodeName)
    if (node === undefined) return layer(nodeName, [])
    const bitmaps = node.bitmaps.map(each => ({ ...each, persistent: each.persistent || transient }))
    // These images are of no account: one size for all.
    return { ...layerOfNode({ ...node, bitmaps }), filename: nodeName, namedAs: nodeName }
  })
}

const nodeName = ({ layer }: Place): string =>
  layer === 'target' ? 'mirror-format-node' : nodeNames[Number(layer)]!
const mirror: Place = { disk: 'vda', layer: 'target', filename: 'mirror' }
const at = (index: number): Place => ({ disk: 'vda', layer: index, filename: nodeNames[index]! })
const flag = (value: boolean): string => (value ? '1' : '0')

/** As libvirt's test prints what it read. */
function rendered(name: string): string {
  const nodes = readNodes(name)
  const lines = nodeNames.flatMap(nodeName => {
    const node = nodes.get(nodeName)
    if (node === undefined) return []
    const bitmaps = node.bitmaps.map(
      each =>
        ` ${each.name.padStart(8)}: record:${flag(each.recording)} busy:${flag(each.busy)} persist:${flag(each.persistent)} ` +
        `inconsist:${flag(each.inconsistent)} gran:${each.granularity} dirty:${each.count}`,
    )
    const snapshots = node.snapshots.map(each => `'${each.name}'${each.vmState ? '(*)' : ''}`)
    const version = node.compat === '0.10' ? [' qcow2 v2'] : []
    const internal = snapshots.length === 0 ? [] : [` internal snapshots: ${snapshots.join(' ')}`]
    return [`${nodeName}:`, ...version, ...bitmaps, ...internal]
  })
  return lines.join('\n')
}

describe.skipIf(!haveCases)(`what libvirt reads of a running QEMU${casesNote}`, () => {
  it.each(['empty', 'basic', 'snapshots', 'synthetic', 'snapshots-internal'])('%s', name => {
    expect(rendered(name).trimEnd()).toBe(readCase('qemublocktestdata', 'bitmap', `${name}.out`).trimEnd())
  })
})

const DELETE = ['basic', 'snapshots', 'synthetic'].flatMap(chain =>
  [
    ['noparent', 'a'],
    ['intermediate1', 'b'],
    ['intermediate2', 'c'],
    ['intermediate3', 'd'],
    ['current', 'current'],
  ].map(([name, bitmap]) => [chain, name!, bitmap!] as const),
)

describe.skipIf(!haveCases)(`libvirt's checkpoint deletions${casesNote}`, () => {
  it('fails where no layer has the bitmap', () => {
    expect(readCase('qemublocktestdata', 'checkpointdelete', 'empty-out.json').trim()).toBe('NULL')
    expect(discard('vda', readLayers('empty'), 'a').operations).toEqual([])
  })

  it.each(DELETE)('%s-%s deletes %s', (chain, name, bitmap) => {
    const expected = readCase('qemublocktestdata', 'checkpointdelete', `${chain}-${name}-out.json`)
    const [actions, reopen = ''] = expected.split('reopen nodes:\n')
    const found = discard('vda', readLayers(chain, true), bitmap)
    expect(operationActions(found.operations, { nodeName })).toEqual(JSON.parse(actions!))
    expect(found.reopen.map(nodeName)).toEqual(reopen.split('\n').filter(line => line !== ''))
  })
})

const COPY = ['empty', 'basic', 'snapshots'].flatMap(chain =>
  ['shallow', 'deep'].map(depth => [chain, depth] as const),
)

describe.skipIf(!haveCases)(`libvirt's block copies${casesNote}`, () => {
  it.each(COPY)('%s-%s', (name, depth) => {
    const chain = readLayers(name)
    const base = depth === 'shallow' ? 1 : undefined
    const { operations } = merge({ disk: 'vda', chain, top: 0, base, target: mirror, writeSource: mirror })
    const expected = readCase('qemublocktestdata', 'bitmapblockcopy', `${name}-${depth}-out.json`)
    expect(operationActions(operations, { nodeName })).toEqual(JSON.parse(expected))
  })
})

const COMMIT: readonly (readonly [chain: string, top: number, base: number])[] = [
  ['empty', 1, 2],
  ['basic', 1, 2],
  ['basic', 1, 3],
  ['basic', 2, 3],
  ...[1, 2, 3, 4].flatMap(top =>
    [2, 3, 4, 5].filter(base => base > top).map(base => ['snapshots', top, base] as const),
  ),
]

describe.skipIf(!haveCases)(`libvirt's block commits${casesNote}`, () => {
  it('are fourteen', () => expect(COMMIT).toHaveLength(14))

  it.each(COMMIT)('%s %i to %i', (name, top, base) => {
    const target = at(base - 1)
    const { operations } = merge({
      ...{ disk: 'vda', chain: readLayers(name), top: top - 1, base: base - 1, target },
      ...(top === 1 ? { writeSource: target } : {}),
    })
    const file = name === 'empty' ? name : `${name}-${top}-${base}`
    expect(existsSync(join(CASES, 'qemublocktestdata', 'bitmapblockcommit', file))).toBe(true)
    const expected = readCase('qemublocktestdata', 'bitmapblockcommit', file).replace(/^.*\n/, '')
    const actions = operationActions(operations, { nodeName })
    // Where there is nothing to do libvirt's test prints nothing.
    expect(actions).toEqual(expected.trim() === '' ? [] : JSON.parse(expected))
  })
})

describe.skipIf(!haveCases)(`libvirt's backups, by the same algorithm${casesNote}`, () => {
  it.each([
    ['empty', 'a', undefined],
    ['basic', 'current', 'basic-flat'],
    ['basic', 'd', 'basic-intermediate'],
    ['basic', 'a', 'basic-deep'],
    ['snapshots', 'current', 'snapshots-flat'],
    ['snapshots', 'd', 'snapshots-intermediate'],
    ['snapshots', 'a', 'snapshots-deep'],
  ])('%s since %s', (chain, name, output) => {
    const { operations } = merge({
      ...{ disk: 'vda', chain: readLayers(chain), top: 0, base: undefined },
      ...{ target: mirror, name, dst: 'target-bitmap-name' },
    })
    const actions = operationActions(operations, {
      nodeName: place => (place.layer === 'target' ? 'target_node' : nodeName(place)),
    })
    const expected =
      output === undefined ? '[]' : readCase('qemublocktestdata', 'backupmerge', `${output}-out.json`)
    expect(actions).toEqual(JSON.parse(expected))
  })
})
