import type { BackupPlan } from './types.js'

export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json }

/**
 * The plan as the command line prints it: keys in kebab-case, a reason's evidence beside its `code`, `severity` and
 * `message`. `dirty-bytes` and `next-best` are absent where there are none; an unknown `virtual-size` is null.
 *
 * @example JSON.stringify(planToJson(plan), undefined, 2)
 */
export function planToJson(plan: BackupPlan): { readonly [key: string]: Json } {
  const disks = plan.disks.map(({ reasons, virtualSize, ...disk }) => {
    const { target, source, mode, libvirt, dirtyBytes, merge, ...rest } = disk
    return {
      ...{ target, source, mode, libvirt, virtualSize: virtualSize ?? null, dirtyBytes, merge },
      reasons: reasons.map(({ evidence, ...reason }) => ({ ...reason, ...evidence })),
      ...rest,
    }
  })
  return toKebab({ ...plan, disks }) as { readonly [key: string]: Json }
}

/**
 * Plain data with its keys in kebab-case (`virtualSize` → `virtual-size`), without the keys that are undefined.
 * For data whose keys are field names; not for maps keyed by what a user wrote.
 */
export function toKebab(value: unknown): Json {
  if (Array.isArray(value)) return value.map(toKebab)
  if (typeof value !== 'object' || value === null) return value as Json
  const entries = Object.entries(value).filter(([, field]) => field !== undefined)
  return Object.fromEntries(entries.map(([key, field]) => [kebab(key), toKebab(field)]))
}

function kebab(key: string): string {
  return key.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`)
}
