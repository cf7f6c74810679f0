import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import * as planner from '../src/index.js'
import * as node from '../src/node/index.js'

const src = fileURLToPath(new URL('../src', import.meta.url))

describe('the package', () => {
  it('exports these', () => {
    expect(Object.keys(planner).sort()).toEqual([
      'DefinitionError',
      'MAX_XML_DEPTH',
      'MAX_XML_LENGTH',
      'PlanError',
      'PlannerError',
      'XmlError',
      'beyondText',
      'bitmapOwner',
      'bitmapPlaces',
      'bodyQueries',
      'buildCheckpointTree',
      'checkpointsOverview',
      'combineChained',
      'completeBackup',
      'completeCheckpoint',
      'dataCommands',
      'discard',
      'embedDomain',
      'judgeBitmap',
      'layerOfNode',
      'merge',
      'operationActions',
      'operationsExitStatus',
      'operationsToEdits',
      'operationsToJson',
      'operationsToQmp',
      'operationsToSh',
      'orderQueries',
      'orphanBitmaps',
      'parseBackup',
      'parseChange',
      'parseCheckpoint',
      'parseCheckpointDraft',
      'parseDomain',
      'parseNamedNodes',
      'planBackup',
      'planCommit',
      'planCopy',
      'planDelete',
      'planEveryCheckpoint',
      'planExitStatus',
      'planPull',
      'planSnapshot',
      'planToBackupXml',
      'planToJson',
      'planToQmp',
      'planToSh',
      'printBackup',
      'printCheckpoint',
      'rebuildCheckpoints',
      'reconcile',
      'redefineCheckpoint',
      'remaining',
      'shellWord',
      'showCheckpoint',
      'simulate',
      'snapshotDisks',
      'sortByInclusion',
      'toKebab',
      'virshCommand',
      'whatIf',
    ])
  })

  it('exports these for Node', () => {
    const here = ['LoadError', 'listDomains', 'loadDomain', 'mapSource', 'parseMapRule']
    expect(Object.keys(node)).toEqual(expect.arrayContaining(here))
  })

  it('is pure outside node/: no file imports from Node or from node/', () => {
    const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter(file => file.endsWith('.ts'))
    for (const file of files.filter(name => !name.startsWith('node'))) {
      expect(readFileSync(join(src, file), 'utf8'), file).not.toMatch(
        /from '(node:|(\.\.?\/)+node\/)|\bprocess\.|\bBuffer\b/,
      )
    }
  })

  it('keeps its files small', () => {
    for (const file of readdirSync(src, { recursive: true, encoding: 'utf8' }).filter(name =>
      name.endsWith('.ts'),
    )) {
      expect(readFileSync(join(src, file), 'utf8').split('\n').length, file).toBeLessThan(350)
    }
  })
})
