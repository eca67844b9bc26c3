package tubthumping.crac;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import jdk.crac.impl.BusySelectorException;
import jdk.crac.impl.CheckpointOpenFileException;
import jdk.crac.impl.CheckpointOpenResourceException;
import jdk.crac.impl.CheckpointOpenSocketException;

/**
 * What stands in the way of an image, as exceptions in the words of a CRaC JDK: a file by its path,
 * a socket by its object, what native code has opened by its number.
 *
 * <p>In: what the engine found. Out: one exception for each descriptor, with the place where it was
 * opened as its cause where that is known.
 */
final class Refusals {
    private Refusals() {}

    /** From kind, number and detail of each. */
    static List<Exception> of(List<byte[]> found) {
        List<Exception> refusals = new ArrayList<>();
        if (found.isEmpty()) {
            return refusals;
        }
        Owners owners = Owners.find();
        Map<Integer, OpenDescriptor> open = new HashMap<>();
        for (OpenDescriptor descriptor : OpenDescriptor.all()) {
            open.put(descriptor.number(), descriptor);
        }
        Set<Integer> numbers = new HashSet<>();
        for (int i = 0; i + 2 < found.size(); i += 3) {
            String kind = Strings.text(found.get(i));
            String fd = Strings.text(found.get(i + 1));
            String detail = Strings.text(found.get(i + 2));
            if (fd.isEmpty()) {
                refusals.add(exception(kind, detail));
                continue;
            }
            int number = Integer.parseInt(fd);
            if (numbers.add(number)) {
                Exception refusal = named(kind, open.get(number), owners.of(number));
                if (refusal == null) {
                    refusal = exception(kind, "FD fd=" + fd + " type=" + kind + " path=" + detail);
                }
                refusal.initCause(Openings.of(number));
                refusals.add(refusal);
            }
        }
        for (String busy : owners.busySelectors(numbers)) {
            refusals.add(new BusySelectorException(busy));
        }
        return refusals;
    }

    /** By what it is here; {@code null} where the engine has more to say. */
    private static Exception named(String kind, OpenDescriptor descriptor, Object owner) {
        boolean agreed =
                descriptor != null
                        && (kind.equals("file") && descriptor.isFile()
                                || kind.equals("socket") && descriptor.isSocket());
        return agreed ? LeftOpen.refusal(descriptor, owner) : null;
    }

    private static Exception exception(String kind, String text) {
        return switch (kind) {
            case "file" -> new CheckpointOpenFileException(text);
            case "socket" -> new CheckpointOpenSocketException(text);
            default -> new CheckpointOpenResourceException(text);
        };
    }
}
