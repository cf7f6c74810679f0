import { UsageError } from './errors.js'

const suffixes = 'kMGTPE'

/**
 * Reads a size as qemu-img does: bytes, or with a suffix `k`, `M`, `G`, `T`, `P`, `E` (binary, either case; `b` is
 * bytes), fractions allowed with one.
 *
 * @throws {UsageError} for anything else, or above 2^53 − 1
 */
export function parseSize(text: string, what = 'size'): number {
  const match = /^(\d+(?:\.\d+)?)([bkmgtpe]?)$/i.exec(text)
  const number = Number(match?.[1])
  const power = suffixes.toLowerCase().indexOf((match?.[2] ?? '').toLowerCase() || 'b') + 1
  const bytes = number * 1024 ** power
  if (match === null || !Number.isSafeInteger(bytes)) {
    throw new UsageError(`${what} '${text}' is not a number of bytes (such as 65536, 64k or 1M)`)
  }
  return bytes
}

/** @throws {UsageError} unless a power of two from 512 bytes to 2 GiB */
export function parseGranularity(text: string): number {
  const bytes = parseSize(text, 'granularity')
  if (!(bytes >= 2 ** 9 && bytes <= 2 ** 31 && Number.isInteger(Math.log2(bytes)))) {
    throw new UsageError(`granularity '${text}' is not a power of two from 512 to 2G`)
  }
  return bytes
}

/** Binary units, three digits: `64 KiB`, `1.5 GiB`. */
export function formatSize(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < suffixes.length) {
    value /= 1024
    unit++
  }
  if (unit === 0) return `${bytes} B`
  const digits = Number.isInteger(value) || value >= 100 ? 0 : value >= 10 ? 1 : 2
  return `${Number(value.toFixed(digits))} ${suffixes[unit - 1]!.toUpperCase()}iB`
}

/** `1 GiB (1073741824 bytes)`; small sizes just once. */
export function formatSizeExactly(bytes: number): string {
  return bytes < 1024 ? `${bytes} bytes` : `${formatSize(bytes)} (${bytes} bytes)`
}

/** A share in percent that is 0 only for nothing and 100 only for all. */
export function formatShare(part: number, whole: number): string {
  if (whole === 0 || part === 0) return '0 %'
  const percent = (part / whole) * 100
  if (percent < 0.01) return '< 0.01 %'
  if (percent > 99.99 && part < whole) return '> 99.99 %'
  return `${Number(percent.toFixed(percent < 10 ? 2 : 1))} %`
}
