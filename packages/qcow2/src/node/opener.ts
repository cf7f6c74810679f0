import { realpath } from 'node:fs'
import { isAbsolute, sep } from 'node:path'
import { promisify } from 'node:util'
import { besideImage } from '../chain/backing-name.js'
import type { ImageOpener, ImageReference } from '../chain/open-chain.js'
import { Qcow2Error } from '../errors.js'
import { type OpenFileOptions, openError, openFile } from './file-storage.js'

export interface FileOpenerOptions extends OpenFileOptions {
  /**
   * What images may refer to, as backing or data files: nothing (`none`, the default: an image from a stranger can
   * name any file of this machine), local files and block devices (`local`), or those below these folders, symbolic
   * links followed. The top is the caller's own choice and always opened.
   */
  readonly references?: 'none' | 'local' | readonly string[]
  /** Where an image is now, given the path by which the domain or an image knows it. Default: there. */
  readonly mapPath?: (path: string) => string
}

/**
 * Opens local regular files and block devices, names taken as QEMU does: the top as the caller names it, backing files
 * relative to the folder of the image that names them, external data files relative to the folder that the process
 * runs in.
 */
export function fileOpener(options: FileOpenerOptions = {}): ImageOpener {
  const { mapPath = (path: string) => path, references = 'none' } = options
  return async (path, reference) => {
    const { from, use } = reference
    const relative = from !== undefined && use !== 'data-file' && !isAbsolute(path)
    const namedAs = relative ? besideImage(from.namedAs, path) : path
    const mapped = mapPath(namedAs)
    // A relative name means the folder where the image above is now, unless a rule speaks of this very file.
    const filename = relative && mapped === namedAs ? besideImage(from.filename, path) : mapped
    if (from !== undefined) await refuse(filename, reference, references)
    return { storage: await openFile(filename, options), filename, namedAs }
  }
}

/** @throws {Qcow2Error} `reference-denied`; `image-missing` where folders are given and the file is not there */
async function refuse(
  filename: string,
  { from, use }: ImageReference,
  references: 'none' | 'local' | readonly string[],
): Promise<void> {
  if (references === 'local') return
  const what = `${use === 'data-file' ? 'data file' : 'backing file'} ${filename} of ${from?.filename}`
  if (references === 'none') {
    throw new Qcow2Error('reference-denied', `${what} is not opened unless the caller allows it`, {
      reference: filename,
    })
  }
  const real = await realPath(filename)
  for (const folder of references) {
    const allowed = await realPath(folder)
    if (real === allowed || real.startsWith(allowed.endsWith(sep) ? allowed : allowed + sep)) return
  }
  throw new Qcow2Error('reference-denied', `${what} is not below ${references.join(' or ')}`, {
    reference: filename,
    allowed: references,
  })
}

async function realPath(path: string): Promise<string> {
  try {
    return await promisify(realpath)(path)
  } catch (cause) {
    throw openError(path, cause)
  }
}
