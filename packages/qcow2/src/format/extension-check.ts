import type { Finding } from '../findings.js'
import { fieldsOf } from './bytes.js'
import { extensionMagic, extensionName, type HeaderExtension } from './extensions.js'
import type { Qcow2Header } from './header.js'

/** QEMU's room for the name, with its final NUL. */
const BACKING_FORMAT_BYTES = 16
const LUKS = 2
const LUKS_POINTER_BYTES = 16

/** What QEMU looks at in the extensions that it knows (qcow2_read_extensions); bitmaps are looked at elsewhere. */
export function checkExtensions(header: Qcow2Header, extensions: readonly HeaderExtension[]): Finding[] {
  const findings: Finding[] = []
  const known = new Set<number>(Object.values(extensionMagic))
  const seen = new Set<number>()
  for (const extension of extensions) {
    const { magic, data } = extension
    // The specification: each type at most once. QEMU takes the last, silently.
    if (known.has(magic) && seen.has(magic)) {
      const again = finding(
        extension,
        'extension-duplicate',
        'type',
        'at most one of its type',
        'another one',
      )
      findings.push(magic === extensionMagic.featureNames ? { ...again, severity: 'warning' } : again)
    }
    seen.add(magic)
    if (magic === extensionMagic.backingFormat && data.byteLength >= BACKING_FORMAT_BYTES) {
      const most = `at most ${BACKING_FORMAT_BYTES - 1} bytes`
      findings.push(finding(extension, 'backing-format-too-long', 'length', most, `${data.byteLength}`))
    }
    if (magic === extensionMagic.luksHeader) findings.push(...checkLuksPointer(header, extension))
  }
  if (header.cryptMethod === LUKS && !seen.has(extensionMagic.luksHeader)) {
    findings.push({
      code: 'luks-header-missing',
      severity: 'error',
      structure: 'header',
      field: 'crypt_method',
      offset: 32,
      expected: 'a header extension that points at the LUKS header',
      found: 'none',
      message: 'the image is encrypted with LUKS, but no header extension says where the LUKS header is',
    })
  }
  return findings
}

function checkLuksPointer(header: Qcow2Header, extension: HeaderExtension): Finding[] {
  const { data } = extension
  const wrong = (field: string, expected: string, found: string) => [
    finding(extension, `luks-pointer-${field}`, field, expected, found),
  ]
  if (header.cryptMethod !== LUKS) return wrong('unexpected', 'no such extension without LUKS', 'one')
  if (data.byteLength !== LUKS_POINTER_BYTES) {
    return wrong('length', `${LUKS_POINTER_BYTES} bytes`, `${data.byteLength}`)
  }
  const clusterSize = 2 ** header.clusterBits
  const offset = fieldsOf(data).bits64(0)
  if (offset % BigInt(clusterSize) !== 0n) return wrong('offset', `a multiple of ${clusterSize}`, `${offset}`)
  return []
}

function finding(
  { magic, offset }: HeaderExtension,
  code: string,
  field: string,
  expected: string,
  found: string,
): Finding {
  return {
    code,
    severity: 'error',
    structure: 'header extension',
    field,
    offset,
    expected,
    found,
    message: `header extension ${extensionName(magic)}: ${field} is ${found}, expected ${expected}`,
  }
}
