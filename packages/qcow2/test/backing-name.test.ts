import { describe, expect, it } from 'vitest'
import { memoryStorage, parseBackingName, probeFormat } from '../src/index.js'

const path = (name: string, format?: string) => ({ kind: 'path', path: name, ...(format && { format }) })
const json = (value: unknown): string => `json:${JSON.stringify(value)}`
const file = { driver: 'file', filename: '/a' }

describe('parseBackingName', () => {
  it.each([
    ['a.qcow2', path('a.qcow2')],
    ['/a', path('/a')],
    ['./a:b', path('./a:b')],
    ['dir/a:b', path('dir/a:b')],
    ['/a:b', path('/a:b')],
    ['file:/a', path('/a')],
    ['file:///a', path('/a')],
    ['file:/a:b', path('/a:b')],
    [json({ driver: 'qcow2', file }), path('/a', 'qcow2')],
    [json({ driver: 'raw', file: { ...file, locking: 'off', 'cache.direct': true } }), path('/a', 'raw')],
    [json({ driver: 'qcow2', file: { ...file, cache: { direct: true } } }), path('/a', 'qcow2')],
    [
      json({ driver: 'qcow2', 'file.driver': 'host_device', 'file.filename': '/dev/x' }),
      path('/dev/x', 'qcow2'),
    ],
    [json({ file: { filename: '/a' } }), path('/a')],
    [json(file), path('/a')],
    [json({ filename: '/a' }), path('/a')],
    [json({ driver: 'luks', file }), path('/a', 'luks')],
  ])('%s is a path', (name, expected) => expect(parseBackingName(name)).toEqual(expected))

  it.each([
    'nbd://host/x',
    'a:b',
    ':x',
    'fat:/dir',
    'file:a',
    'file:',
    'json:',
    'json:{',
    'json:null',
    'json:[1]',
    'json:"x"',
    'json:{}',
    json({ driver: 'qcow2', file: 'node0' }),
    json({ driver: 'qcow2', file: { driver: 'nbd', host: 'h' } }),
    json({ driver: 'qcow2', file: { driver: 'file', filename: 'relative' } }),
    json({ driver: 'qcow2', file: { driver: 'file', filename: 7 } }),
    json({ driver: 'raw', offset: 512, file }),
    json({ driver: 'raw', size: 512, file }),
    json({ driver: 'qcow2', backing: null, file }),
    json({ driver: 'qcow2', 'data-file': file, file }),
    json({ driver: 'raw', file: { driver: 'qcow2', file } }),
    json({ driver: 'throttle', 'throttle-group': 'g', file }),
  ])('%s is no plain file', name => expect(parseBackingName(name).kind).toBe('other'))
})

describe('probeFormat', () => {
  const probe = (...bytes: (number | string)[]) =>
    probeFormat(
      memoryStorage(new Uint8Array(bytes.flatMap(b => (typeof b === 'string' ? [...Buffer.from(b)] : [b])))),
    )
  it.each([
    ['qcow2', ['QFI', 0xfb, 0, 0, 0, 2]],
    ['qcow2', ['QFI', 0xfb, 0, 0, 0, 3]],
    ['qcow', ['QFI', 0xfb, 0, 0, 0, 1]],
    ['raw', []],
    ['raw', ['QFI']],
    ['raw', ['QFI', 0xfc, 0, 0, 0, 3]],
    ['luks', ['LUKS', 0xba, 0xbe, 0, 1]],
    ['raw', ['LUKS', 0xba]],
    ['vmdk', ['KDMV']],
    ['vmdk', ['# Disk DescriptorFile\n']],
    ['vhdx', ['vhdxfile']],
    ['vpc', ['conectix']],
    ['qed', ['QED', 0]],
    ['vdi', [...new Array<number>(64).fill(0), 0x7f, 0x10, 0xda, 0xbe]],
    ['parallels', ['WithoutFreeSpace']],
  ])('%s', async (format, bytes) => expect(await probe(...(bytes as (number | string)[]))).toBe(format))
})
