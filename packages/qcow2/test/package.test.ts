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
  [...read(path).matchAll(/\{([^}]*)\}/g)]
    .flatMap(([, list]) => list!.split(','))
    .map(name => name.trim())
    .filter(name => name.startsWith('type '))
    .map(name => name.slice(5))
    .sort()

describe('the exports', () => {
  it('of . at run time', async () => {
    expect(Object.keys(await import(`${root}/dist/index.js`)).sort()).toEqual([
      'COMBINE_ARENA_BYTES',
      'CorruptImageError',
      'Qcow2Error',
      'ShortReadError',
      'UnsupportedFeatureError',
      'autoclear',
      'checkHeader',
      'checkRange',
      'closeChain',
      'compatible',
      'countDirty',
      'createEngine',
      'dirtyExtents',
      'diskBytes',
      'extensionMagic',
      'extensionName',
      'findBitmap',
      'findingToError',
      'hostOffset',
      'incompatible',
      'inspectImage',
      'memoryStorage',
      'openBitmap',
      'openChain',
      'openImage',
      'parseBackingName',
      'parseExtensions',
      'parseFeatureNames',
      'parseHeader',
      'probeFormat',
      'readBytes',
      'scanBitmapTables',
    ])
  })
  it('of . for the compiler', () => {
    expect(typesOf('dist/index.d.ts')).toEqual([
      'BackingReference',
      'BitmapDirectory',
      'BitmapEngine',
      'BitmapOperand',
      'BitmapSource',
      'BitmapSourceOptions',
      'ChainLayer',
      'CombineOptions',
      'FeatureName',
      'FeatureType',
      'Finding',
      'HeaderExtension',
      'HostOffset',
      'ImageInspection',
      'ImageOpener',
      'ImageReference',
      'ImageStorage',
      'MergeOperation',
      'OpenChainOptions',
      'OpenedImage',
      'PersistentBitmap',
      'Qcow2ErrorCode',
      'Qcow2Header',
      'StretchState',
    ])
  })
  it('of ./node', async () => {
    expect(Object.keys(await import(`${root}/dist/node/index.js`)).sort()).toEqual([
      'fileOpener',
      'openFile',
      'readLockTable',
      'readLocks',
    ])
    expect(typesOf('dist/node/index.d.ts')).toEqual([
      'FileOpenerOptions',
      'ImageLocks',
      'LockTable',
      'OpenFileOptions',
    ])
  })
})

describe('the package', () => {
  it('depends on the bitmap kernels and nothing else', () => {
    const manifest = JSON.parse(read('package.json'))
    expect(manifest.dependencies).toEqual({ '@tidemark/bitmap-wasm': 'workspace:*' })
    expect(manifest).not.toHaveProperty('peerDependencies')
    expect(manifest).not.toHaveProperty('optionalDependencies')
    expect(Object.keys(manifest.exports)).toEqual(['.', './node'])
  })

  it('imports Node only below ./node, and runs in a browser but for that', () => {
    expect(scripts).toContain('index.js')
    expect(scripts).toContain('node/index.js')
    for (const script of scripts) {
      const code = read(`dist/${script}`)
      const imports = [...code.matchAll(/(?:from|import|require)\s*\(?\s*['"]([^'"]+)['"]/g)].map(
        ([, from]) => from!,
      )
      const foreign = imports.filter(from => !from.startsWith('.') && from !== '@tidemark/bitmap-wasm')
      if (script.startsWith('node/'))
        expect(
          foreign.filter(from => !from.startsWith('node:')),
          script,
        ).toEqual([])
      else {
        expect(foreign, script).toEqual([])
        expect(
          imports.filter(from => from.includes('/node/')),
          script,
        ).toEqual([])
        expect(code.match(/\b(?:process\.|Buffer\.|require\(|__dirname)/), script).toBeNull()
      }
    }
  })

  it('is small', () => {
    const bytes = scripts.reduce((sum, script) => sum + statSync(`${root}/dist/${script}`).size, 0)
    expect(bytes).toBeLessThanOrEqual(96 * 1024)
  })
})
