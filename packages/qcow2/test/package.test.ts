// What the package promises as a whole; judged by what is built, since that is what others get.
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (path: string) => readFileSync(`${root}/${path}`, 'utf8')
const scripts = readdirSync(`${root}/dist`, { recursive: true, encoding: 'utf8' }).filter(file =>
  file.endsWith('.js'),
)

const typesOf = (path: string): string[] =>
  [...read(path).matchAll(/export (type )?\{([^}]*)\}/g)]
    .flatMap(([, type = '', list]) => list!.split(',').map(name => type + name.trim()))
    .filter(name => name.startsWith('type '))
    .map(name => name.slice(5))
    .sort()

describe('the exports', () => {
  it('of . at run time', async () => {
    expect(Object.keys(await import(`${root}/dist/index.js`)).sort()).toEqual([
      'COMBINE_ARENA_BYTES',
      'ClusterBits',
      'CorruptImageError',
      'Qcow2Error',
      'ShortReadError',
      'UnsupportedFeatureError',
      'autoclear',
      'blobStorage',
      'checkHeader',
      'checkRange',
      'closeChain',
      'compatible',
      'countDirty',
      'createEngine',
      'describeLuks',
      'dirtyExtents',
      'diskBytes',
      'editBitmaps',
      'editImages',
      'extensionMagic',
      'extensionName',
      'findBitmap',
      'findingToError',
      'fullBackingName',
      'hostOffset',
      'incompatible',
      'inspectImage',
      'libraryCodecs',
      'mapReferences',
      'memoryStorage',
      'memoryWritable',
      'openBitmap',
      'openChain',
      'openDisk',
      'openHttp',
      'openImage',
      'parseBackingName',
      'parseExtensions',
      'parseFeatureNames',
      'parseHeader',
      'probeFormat',
      'readBytes',
      'readLuksHeader',
      'readSnapshots',
      'recoverImages',
      'scanBitmapTables',
    ])
  })
  it('of . for the compiler', () => {
    expect(typesOf('dist/index.d.ts')).toEqual([
      'BackingReference',
      'BitmapAction',
      'BitmapDirectory',
      'BitmapEngine',
      'BitmapOperand',
      'BitmapSource',
      'BitmapSourceOptions',
      'BlockCipher',
      'ChainLayer',
      'Codecs',
      'CombineOptions',
      'DiskExtent',
      'EditCost',
      'EditImagesOptions',
      'EditJournal',
      'EditOptions',
      'EditPlan',
      'EditStep',
      'EditWrite',
      'FeatureName',
      'FeatureType',
      'Finding',
      'FoundState',
      'FutureBitmap',
      'GuestDisk',
      'HashName',
      'HeaderExtension',
      'HostOffset',
      'ImageEdit',
      'ImageInspection',
      'ImageOpener',
      'ImageReference',
      'ImageStorage',
      'LuksDescription',
      'LuksHeader',
      'LuksKeySlot',
      'LuksSlotDescription',
      'MemoryWritableOptions',
      'MergeOperation',
      'OpenChainOptions',
      'OpenDiskOptions',
      'OpenHttpOptions',
      'OpenedImage',
      'PersistentBitmap',
      'Qcow2ErrorCode',
      'Qcow2Header',
      'ReadOptions',
      'RecoverOptions',
      'RecoveredImage',
      'Recovery',
      'ReferenceMap',
      'SectorCipher',
      'Snapshot',
      'StoredRun',
      'StretchState',
      'WritableStorage',
    ])
  })
  it('of ./node', async () => {
    expect(Object.keys(await import(`${root}/dist/node/index.js`)).sort()).toEqual([
      'createJournalFile',
      'fileOpener',
      'journalExists',
      'nodeCodecs',
      'openFile',
      'openHeldFile',
      'openJournalFile',
      'openWritableFile',
      'readLockTable',
      'readLocks',
    ])
    expect(typesOf('dist/node/index.d.ts')).toEqual([
      'FileOpenerOptions',
      'ImageLocks',
      'LockTable',
      'OpenFileOptions',
      'OpenWritableFileOptions',
    ])
  })
})

describe('the package', () => {
  /** What inflates and deciphers where the platform cannot. */
  const libraries = ['@noble/ciphers', 'pako', 'zstddec']

  it('depends on the bitmap kernels, three libraries for data, and koffi where it can be had', () => {
    const manifest = JSON.parse(read('package.json'))
    expect(Object.keys(manifest.dependencies).sort()).toEqual(['@tidemark/bitmap-wasm', ...libraries].sort())
    expect(manifest).not.toHaveProperty('peerDependencies')
    expect(Object.keys(manifest.optionalDependencies)).toEqual(['koffi'])
    expect(Object.keys(manifest.exports)).toEqual(['.', './node'])
  })

  it('imports Node only below ./node, and runs in a browser but for that', () => {
    expect(scripts).toContain('index.js')
    expect(scripts).toContain('node/index.js')
    for (const script of scripts) {
      const code = read(`dist/${script}`)
      const imports = [...code.matchAll(/(?:from|import|require)\s*(\()?\s*['"]([^'"]+)['"]/g)].map(
        ([, called, from]) => ({ lazily: called !== undefined, from: from! }),
      )
      // Libraries are loaded when data need them: who reads metadata alone has none of them.
      const foreign = imports
        .filter(
          ({ lazily, from }) => !(lazily && [...libraries, 'koffi'].some(name => from.startsWith(name))),
        )
        .map(({ from }) => from)
        .filter(from => !from.startsWith('.') && from !== '@tidemark/bitmap-wasm')
      if (script.startsWith('node/'))
        expect(
          foreign.filter(from => !from.startsWith('node:')),
          script,
        ).toEqual([])
      else {
        expect(foreign, script).toEqual([])
        expect(
          imports.filter(({ from }) => from.includes('/node/') || from === 'koffi'),
          script,
        ).toEqual([])
        expect(code.match(/\b(?:process\.|Buffer\.|require\(|__dirname)/), script).toBeNull()
      }
    }
  })

  it('is small', () => {
    const bytes = scripts.reduce((sum, script) => sum + statSync(`${root}/dist/${script}`).size, 0)
    expect(bytes).toBeLessThanOrEqual(360 * 1024)
  })
})
