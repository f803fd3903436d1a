#include "engine/quality/self_check.h"

namespace asymserve {
namespace {

constexpr char kText[] = R"(The ledger of the Harrow Point light

When the commissioners closed the lighthouse at Harrow Point they sent a clerk named Edith Vance
to make a list of everything in it. She arrived on a Tuesday, the ninth of October, with two
pencils, a folding rule and a letter that said the work would take three days. The tower had one
hundred and forty-two steps. The lamp room held a lens of eleven panels, and the store below it
held forty-six cans of oil, of which nine were empty. She wrote all of this down. She was a
careful person, and she liked a number better than an adjective, because nobody could quarrel with
it afterwards.

The last keeper, Thomas Arkwright, was still living in the cottage with his daughter Nell and a
grey dog that answered to Captain. He had kept the light for thirty-one years. He did not object
to the clerk, but he did not help her either. He sat at the kitchen table, mended a net that he no
longer needed, and watched her carry her papers up and down the stairs.

"You have counted the cans," he said on the first evening.

"Forty-six," said Edith.

"You will find forty-seven tomorrow, if you look behind the door of the coal shed."

She looked, and there it was: a small can, painted blue, with a wax seal on the lid. She asked
what was in it. He told her that it was the oil for the first night of the year, that every keeper
before him had done the same, and that nobody remembered why. The blue can was filled on the last
day of December, it was burned on the first of January, and for the rest of the year it stood
behind the door of the coal shed, where the damp could not get at the seal. Edith crossed out
forty-six, wrote forty-seven, and added in the margin: one blue, sealed, kept apart by custom.

On the second day she measured the rooms. The lamp room was round, twelve feet and four inches
from wall to wall. The watch room beneath it had a desk, a chair, a brass clock that ran six
minutes slow, and a shelf with the ledgers of the light. There were thirty-eight of them, bound in
green cloth. A keeper had to enter the weather at every change of the watch, the hour at which the
lamp was lit, the hour at which it was put out, and the name of every ship that passed near enough
to be read through the glass. The oldest ledger began in the spring of 1807. The first ship in it
was the Margaret, out of Leith, carrying slate.

Edith had no instruction to read the ledgers. She was to count them, and to note their condition,
which was good. But the rain had begun, the stairs were dark, and she had a lamp. So she sat down
in the chair and opened one in the middle. The writing was small and upright. Wind from the
north-west, strong. Lit at half past four. Passed: the Good Intent, the Sarah Dunn, a Dutch brig
whose name could not be made out. A glass of water left on the desk was found frozen at six. That
was all for that night, and the next night was much like it, and so was the one after.

She noticed the pattern only when she came to the third volume. Every year, on the first of
January, the entry was longer by a line. The line was always the same: "Burned the blue for the
Margaret."

Nell came up with tea at four o'clock. She was nineteen, she knew the stairs so well that she
carried the tray without looking at her feet, and she did not seem surprised to find the clerk
reading.

"Everybody does that," she said. "The inspector did, when he came about the roof. My father says
that the books are the only part of the light that does not need painting."

"What happened to the Margaret?" asked Edith.

"She passed here in the spring of 1807, on her first voyage. She passed again in the autumn. And
then there was a night in the winter when the lamp went out. The keeper was called Josiah Pell. He
had let the oil run low, because the boat was late, and he thought that it would last until the
morning. It lasted until a quarter past two. She came round the point at three." Nell put the tray
on the desk, well away from the books. "There were fourteen people on her. After that he always
kept one can more than he needed, where he could not see it, so that he would not count it. I
suppose that is why it is behind the door."

Edith drank the tea. It was strong, and there was too much sugar in it. She turned back to the
list and read what she had written the day before: one blue, sealed, kept apart by custom. She
took the pencil and, after thinking about it for some time, left the words as they were. They were
true. It was not her business to explain them.

On the third day the fog came in. It covered the rocks first, then the landing, then the roof of
the cottage, and by noon the lamp room stood by itself above a white floor. The new light, on the
mole at Carrick, was to be lit for the first time that evening; it had an electric lamp, it needed
no keeper, and it could be seen, the commissioners said, from a distance of twenty-four miles.
From Harrow Point it could not be seen at all. Thomas Arkwright climbed the stairs at five, a
thing he had not done since the clerk arrived, and stood at the glass with his hands behind his
back. The dog had followed him and lay down across the top step.

"How many steps did you count?" he asked.

"A hundred and forty-two."

"I have always made it a hundred and forty-one. But I never counted the one at the bottom, where
the stone is worn. I took it for part of the floor." He was silent for a while. "There is a ship
out there. Listen."

Edith listened. She heard the water, and the clock, six minutes slow, and the breathing of the
dog. Then she heard it too: a bell, a long way off, and after it, not so far off, the answer of
another one. Two ships, then, each of them asking where the other was, and neither of them knowing
where the rocks were.

"The mole at Carrick is lit by now," she said.

"It is. And in this weather it lights the mole at Carrick." He turned round. "Miss Vance, what
does your letter say about the lamp?"

She knew the letter by heart, but she took it out and read it to him, because it was a document,
and he was entitled to hear it. The lens was to be packed in straw and sent to the depot. The oil
was to be sold. The lamp was not mentioned. Neither was there a word to say on which night it
should be lit for the last time; the writer had supposed that this had been settled by somebody
else.

"Then I see nothing against it," said Thomas Arkwright.

The cans in the store had been tied together with cord that morning, in fours, and the cord had
been sealed with lead, for the sale. She had tied the knots herself. There were eleven bundles of
four and two cans left over, and every one of them was on the list, with a number, and the list
was signed. It came to forty-six. She looked at it for as long as it takes to read a line of
writing, and then she went down the hundred and forty-two steps, across the yard, and into the
coal shed, and felt behind the door.

It burned very well. It burned from twenty minutes to six until a little after four in the
morning, when the wind went round to the east and the fog was gone in a quarter of an hour. At
first light they could see both ships. One of them was a collier, low in the water and in no
hurry. The other was a small schooner with new sails, so close to the point that Nell could read
the name on her stern without the glass; and she read it aloud, and then nobody said anything.

Edith Vance entered it in the ledger, because the keeper's hands were not steady and because it
had to be entered. Fog until four. Lit at five forty by the clock, which is slow. She wrote down
the name of the collier and the name of the schooner. She considered the list, on which there were
forty-seven cans, and made the last correction: forty-six, of which nine are empty. Then she took
the ledger once more, and under the names of the ships, in her own upright hand, she added the
line that belonged there, although it was not the first of January.
)";

}  // namespace

std::string_view SelfCheckText() {
  return {kText, sizeof(kText) - 1};
}

}  // namespace asymserve
