// Making and changing elements. Text from elsewhere only ever becomes text here, never markup, and what is there already is
// changed in place, so that nothing under a keyboard's focus goes away every two seconds.

const SVG = "http://www.w3.org/2000/svg";

const fill = (element, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
};

/** An HTML element with attributes (`onclick` and the like are listeners) and children. */
export const el = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);

/** An SVG element. */
export const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

export const id = (name) => document.getElementById(name);

/** Sets a text if it is another one: what is read out when it changes must not be read out else. */
export const say = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};

/** Sets or removes an attribute if it is another one. */
export const mark = (element, name, value) => {
  if (value == null || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
};

/** Has `parent` hold one element an item, in order: those of known keys stay, and only what is out of place moves. */
export const each = (parent, items, keyOf, make, update) => {
  const known = new Map(Array.from(parent.children, (child) => [child.dataset.key, child]));
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let child = known.get(key);
    known.delete(key);
    if (!child) {
      child = make(item);
      child.dataset.key = key;
    }
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
    update(child, item);
  }
  known.forEach((child) => child.remove());
};
