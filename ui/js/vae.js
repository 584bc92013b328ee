// The server's VAEs: those to choose from, those that fit a model, and the fast ones.
'use strict';

{
  const { catalogue } = Imagine;

  const isFast = ({ details }) => details?.decoder === 'fast';
  const named = (name) => catalogue.vaes.find((one) => one.name === name);
  const fitting = (model) => catalogue.vaes.filter((one) => !catalogue.misfit(one, model));

  /** What there is to choose from, as options: values and texts. */
  const choices = () => [
    ['', "The model's"],
    ['none', 'The one in the model'],
    ...catalogue.vaes.filter((one) => !isFast(one)).map(({ name }) => [name, name]),
  ];

  Imagine.vae = { choices, fitting, named, isFast };
}
