/**
 * What of `wanted` is not in `found`, as paths with both values. Objects may have more keys; lists must be equally
 * long and agree item by item.
 */
export function missingFrom(found: unknown, wanted: unknown, path = '$'): string[] {
  if (Array.isArray(wanted)) {
    if (!Array.isArray(found) || found.length !== wanted.length) return [differs(path, found, wanted)]
    return wanted.flatMap((item, i) => missingFrom(found[i], item, `${path}[${i}]`))
  }
  if (typeof wanted === 'object' && wanted !== null) {
    if (typeof found !== 'object' || found === null) return [differs(path, found, wanted)]
    return Object.entries(wanted).flatMap(([key, value]) =>
      missingFrom((found as Record<string, unknown>)[key], value, `${path}.${key}`),
    )
  }
  return Object.is(found, wanted) ? [] : [differs(path, found, wanted)]
}

function differs(path: string, found: unknown, wanted: unknown): string {
  return `${path}: ${JSON.stringify(found)} where qemu-img has ${JSON.stringify(wanted)}`
}
