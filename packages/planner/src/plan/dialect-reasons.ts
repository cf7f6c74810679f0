/** Reasons of the chained dialect, and of a tree that leaves open what it needs. */
import type { LayerFacts } from '../facts.js'
import { listNames } from '../nearest.js'
import type { BitmapContext } from './bitmap-reasons.js'
import type { DialectRule } from './dialect.js'
import { type Reason, reason } from './reasons.js'

/** Why libvirt refuses what can be done all the same, and how. */
export function unitedReason(
  rule: Exclude<DialectRule, 'independent'>,
  target: string,
  checkpoint: string,
  bitmaps: readonly string[],
): Reason {
  const all =
    bitmaps.length === 1 ? `bitmap ${listNames(bitmaps)}` : `the bitmaps ${listNames(bitmaps)} together`
  const way =
    `What changed on ${target} since '${checkpoint}' is in ${all}. libvirt since 6.6 looks at the asked checkpoint's ` +
    'alone and refuses a disabled one, so virsh cannot make this backup; --format sh (the domain off) and ' +
    '--format qmp can.'
  const byHand = ' If somebody disabled bitmaps by hand, say --dialect independent.'
  return rule === 'chained'
    ? reason(
        'dialect-chained',
        'note',
        `Only the newest checkpoint's bitmap records (chained). ${way}${byHand}`,
        { checkpoint, bitmaps },
      )
    : reason(
        'dialect-mixed',
        'note',
        `Older bitmaps are disabled and newer ones record, as on a host whose libvirt was upgraded. ${way}${byHand}`,
        { checkpoint, bitmaps },
      )
}

export function bitmapUnaccounted(
  { target, chain, bitmap: checkpoint }: BitmapContext,
  { layer, bitmaps }: { readonly layer: number; readonly bitmaps: readonly string[] },
): Reason {
  const { filename } = chain[layer]!
  const [them, theirs] = bitmaps.length === 1 ? ['it', 'that'] : ['they', 'those']
  return reason(
    'bitmap-unaccounted',
    'blocks',
    `${filename} (layer ${layer} of ${target}) has ${listNames(bitmaps)}, of no checkpoint that there is. If ${them} ` +
      `belonged to a checkpoint after '${checkpoint}' whose metadata is lost, what was written then is in ${theirs} ` +
      `alone. Copy ${target} whole; tidemark checkpoint redefine makes the metadata anew, and a bitmap of something ` +
      'else can be removed (tidemark bitmap --remove).',
    { layer, filename, checkpoint, bitmaps },
  )
}

export function layerGone(target: string, checkpoint: string, file: string): Reason {
  return reason(
    'layer-gone',
    'blocks',
    `At checkpoint '${checkpoint}' ${file} was an image of ${target}'s chain, and it has left it since. Whoever ` +
      'committed or pulled it away left its disabled bitmaps behind, so what they recorded may be lost. Copy ' +
      `${target} whole.`,
    { checkpoint, file },
  )
}

export function layerOrderChanged(target: string, checkpoint: string, newer: string): Reason {
  return reason(
    'layer-order-changed',
    'blocks',
    `The image that was the top of ${target} at the newer checkpoint '${newer}' lies below that of '${checkpoint}': ` +
      `the disk went back to an older state in between. Copy ${target} whole.`,
    { checkpoint, newer },
  )
}

/** Where a bitmap is, for a plan that unites several. */
export function layersWith(chain: readonly LayerFacts[], bitmap: string): readonly number[] {
  return chain.flatMap(({ bitmaps }, layer) => (bitmaps.some(({ name }) => name === bitmap) ? [layer] : []))
}
