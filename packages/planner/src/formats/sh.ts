import { shellQuote } from '../paths.js'
import type { Reason } from '../plan/reasons.js'
import type { BackupPlan, DiskPlan } from '../plan/types.js'
import { requireKnown } from './require-known.js'

export interface ShOptions {
  /** Folder of the results. Default: the current one. */
  readonly outDir?: string | undefined
  /** Makes an image's path one that holds wherever the script runs. Default: as the plan has it. */
  readonly resolvePath?: ((path: string) => string) | undefined
  /** Where images are now that were copied: the overlays still name their backing files as they were. */
  readonly mapRules?: readonly { readonly from: string; readonly to: string }[] | undefined
}

/**
 * Commands that make the backup while the domain is off, for `sh -e` with `tidemark` and `qemu-img` on PATH. For each
 * incremental disk: its dirty extents in `TARGET.dirty.json`, and their data in `TARGET.dirty.raw`, sparse, of the
 * disk's size, each at its own offset. For each full disk: a whole copy in `TARGET.full.qcow2`. A disk whose images
 * cannot be read, or would be read otherwise than the domain does, makes the script fail, after the others are done.
 *
 * To restore, write the dirty extents of the raw file over the backup before (docs/planning.md shows how).
 *
 * @returns a script with one command a line, a comment before each disk
 * @throws {PlanError} `plan-unknown`
 * @example writeFileSync('backup.sh', planToSh(plan, { outDir: '/backup/web' }))
 */
export function planToSh(plan: BackupPlan, options: ShOptions = {}): string {
  requireKnown(plan)
  const { resolvePath = (path: string) => path, mapRules = [] } = options
  const out = (name: string) => quotePath(options.outDir === undefined ? name : `${options.outDir}/${name}`)
  const rules = mapRules.map(({ from, to }) => ` --map-source ${shellQuote(`${from}=${resolvePath(to)}`)}`)
  const title = `# Backup of domain ${comment(plan.domain)} since checkpoint ${comment(plan.incremental)}; run with sh -e`
  const lines = ['#!/bin/sh -e', title]
  const unreadable = plan.disks.filter(disk => (disk.mode === 'full' && !readable(disk)) || otherwise(disk))
  for (const disk of plan.disks) {
    const name = disk.target.replace(/[^\w.-]/g, '_')
    if (otherwise(disk)) continue
    if (disk.mode === 'incremental') {
      const bitmaps = bitmapArguments(disk, resolvePath)
      lines.push(
        `# ${comment(disk.target)}: incremental`,
        `tidemark map ${bitmaps} --output json > ${out(`${name}.dirty.json`)}`,
        `tidemark dump ${bitmaps}${rules.join('')} -o ${out(`${name}.dirty.raw`)}`,
      )
    } else if (readable(disk)) {
      const codes = disk.reasons.filter(({ severity }) => severity === 'blocks').map(({ code }) => code)
      const source = quotePath(resolvePath(disk.filename ?? disk.source))
      lines.push(
        `# ${comment(disk.target)}: full (${[...new Set(codes)].join(', ')})`,
        // The format is given: probing a raw disk would believe whatever header the guest wrote into it.
        `qemu-img convert -f ${shellQuote(disk.format ?? 'raw')} -O qcow2 ${source} ${out(`${name}.full.qcow2`)}`,
      )
    }
  }
  for (const disk of unreadable) {
    const why = otherwise(disk) ?? disk.reasons[0]
    const message = `${disk.target}: not backed up: ${why?.message ?? 'its images cannot be read'}`
    lines.push(`printf '%s\\n' ${shellQuote(message)} >&2`)
  }
  if (unreadable.length > 0) lines.push('exit 1')
  return `${lines.join('\n')}\n`
}

/** The top image and all bitmaps to unite: those of other layers with their files. */
function bitmapArguments({ filename, merge }: DiskPlan, resolvePath: (path: string) => string): string {
  const bitmaps = merge.map(source =>
    shellQuote(source.layer === 0 ? source.bitmap : `${source.bitmap}@${resolvePath(source.filename)}`),
  )
  const top = quotePath(resolvePath(filename ?? merge[0]!.filename))
  return [top, ...bitmaps.map(bitmap => `--bitmap ${bitmap}`)].join(' ')
}

const UNREADABLE = new Set([
  'image-missing',
  'image-unreadable',
  'image-corrupt',
  'image-unsupported',
  'image-denied',
])

/** A corrupt bitmap makes QEMU refuse the image as well, so qemu-img could not copy it. */
function readable({ reasons, filename, type }: DiskPlan): boolean {
  if (filename === undefined && type !== 'file' && type !== 'block') return false
  return !reasons.some(
    ({ code }) => UNREADABLE.has(code) || code === 'backing-cycle' || code === 'bitmap-corrupt',
  )
}

/** What opens an image by itself would read another disk than the domain has. */
function otherwise({ reasons }: DiskPlan): Reason | undefined {
  return reasons.find(({ code }) => code === 'backing-file-differs')
}

/** A file name in quotes that cannot be taken for an option. */
function quotePath(path: string): string {
  return shellQuote(path.startsWith('-') ? `./${path}` : path)
}

function comment(text: string): string {
  return text.replace(/\p{Cc}/gu, ' ')
}
