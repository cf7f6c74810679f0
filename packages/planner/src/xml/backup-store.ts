import type { BackupEncryption, BackupStore, SecurityLabel } from '../formats/backup-definition.js'
import type { XmlElement } from './document.js'
import { attribute, childElement, childElements, childText, elementError, enumAttribute } from './elements.js'
import { absolutePath, requireContent } from './schema.js'

/** The `<target>` or `<scratch>` of a `<domainbackup>`'s disk. */
export function readStore(store: XmlElement, type: 'file' | 'block'): BackupStore {
  const by = type === 'file' ? 'file' : 'dev'
  requireContent(store, [by], { seclabel: 'many', encryption: 'once' })
  const encryption = childElement(store, 'encryption')
  const seclabels = childElements(store, 'seclabel').map(readSeclabel)
  return {
    path: absolutePath(store, by),
    ...(encryption === undefined ? {} : { encryption: readEncryption(encryption) }),
    ...(seclabels.length === 0 ? {} : { seclabels }),
  }
}

function readSeclabel(seclabel: XmlElement): SecurityLabel {
  requireContent(seclabel, ['model', 'relabel', 'labelskip'], { label: 'once' })
  const relabel = enumAttribute(seclabel, 'relabel', ['yes', 'no'], "a seclabel's relabel")
  const labelskip = enumAttribute(seclabel, 'labelskip', ['yes', 'no'], "a seclabel's labelskip")
  const label = childText(seclabel, 'label')
  if ((relabel === 'no' || labelskip === 'yes') === (label !== undefined)) {
    throw elementError(seclabel, "a seclabel has a label, or relabel='no'", { expected: '<label>' })
  }
  return {
    model: attribute(seclabel, 'model'),
    ...(labelskip === undefined ? {} : { labelskip }),
    ...(relabel === undefined ? {} : { relabel }),
    ...(label === undefined ? {} : { label }),
  }
}

function readEncryption(encryption: XmlElement): BackupEncryption {
  const children = { secret: 'once', cipher: 'once', ivgen: 'once' } as const
  requireContent(encryption, ['format', 'engine'], children, 'secret')
  enumAttribute(encryption, 'format', ['luks'], "a backup's encryption")
  const secret = childElement(encryption, 'secret')!
  requireContent(secret, ['type', 'uuid', 'usage'], {})
  enumAttribute(secret, 'type', ['passphrase'], "a secret's type")
  const { uuid, usage } = secret.attributes
  if ((uuid === undefined) === (usage === undefined)) {
    throw elementError(secret, 'a secret is named by its uuid or by its usage', { expected: 'one of them' })
  }
  const engine = attribute(encryption, 'engine')
  const [cipher] = childElements(encryption, 'cipher')
  const [ivgen] = childElements(encryption, 'ivgen')
  return {
    ...(engine === undefined ? {} : { engine }),
    secret: uuid === undefined ? { usage: usage! } : { uuid },
    ...(cipher && { cipher: readAttributes(cipher, ['name', 'size', 'mode', 'hash']) }),
    ...(ivgen && { ivgen: readAttributes(ivgen, ['name', 'hash']) }),
  }
}

function readAttributes<Name extends string>(
  element: XmlElement,
  names: readonly Name[],
): Record<Name, string | undefined> {
  requireContent(element, names, {})
  return Object.fromEntries(names.map(name => [name, attribute(element, name)])) as Record<
    Name,
    string | undefined
  >
}
