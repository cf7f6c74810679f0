/** ISO 8601, UTC: what all of a host's logs can be compared with. Seconds alone where no calendar goes so far. */
export function isoTime(seconds: number): string {
  const date = new Date(seconds * 1000)
  return Number.isNaN(date.getTime()) ? `${seconds} s` : date.toISOString().replace('.000Z', 'Z')
}
