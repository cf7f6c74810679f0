import { fieldsOf } from '../format/bytes.js'
import { type ImageStorage, readBytes } from '../storage/storage.js'

const ascii = (text: string): number[] => [...text].map(c => c.charCodeAt(0))

/** Magic bytes of formats that must not be taken for raw data; the names are QEMU's. */
const signatures: readonly { format: string; offset: number; bytes: readonly number[] }[] = [
  { format: 'luks', offset: 0, bytes: [...ascii('LUKS'), 0xba, 0xbe] },
  { format: 'vmdk', offset: 0, bytes: ascii('KDMV') },
  { format: 'vmdk', offset: 0, bytes: ascii('COWD') },
  { format: 'vmdk', offset: 0, bytes: ascii('# Disk DescriptorFile') },
  { format: 'vhdx', offset: 0, bytes: ascii('vhdxfile') },
  { format: 'vpc', offset: 0, bytes: ascii('conectix') },
  { format: 'qed', offset: 0, bytes: [...ascii('QED'), 0] },
  { format: 'vdi', offset: 64, bytes: [0x7f, 0x10, 0xda, 0xbe] },
  { format: 'parallels', offset: 0, bytes: ascii('WithoutFreeSpace') },
  // What QEMU itself writes.
  { format: 'parallels', offset: 0, bytes: ascii('WithouFreSpacExt') },
]

/** Tells a format by its first bytes, as qemu-img does; what nothing claims is `raw`. */
export async function probeFormat(storage: ImageStorage): Promise<string> {
  const head = await readBytes(storage, 0, Math.min(128, storage.size))
  if (head.byteLength >= 8 && fieldsOf(head).u32(0) === 0x514649fb) {
    return fieldsOf(head).u32(4) === 1 ? 'qcow' : 'qcow2'
  }
  const found = signatures.find(({ offset, bytes }) => bytes.every((byte, i) => head[offset + i] === byte))
  return found?.format ?? 'raw'
}
