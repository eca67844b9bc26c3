package tubthumping.crac;

import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import jdk.crac.CheckpointException;
import jdk.crac.Resource;
import jdk.crac.RestoreException;

/** What resources threw, flat and in order. */
final class Failures {
    /** One throwable, and the resource that threw it where there is one. */
    record Failure(Throwable thrown, String resource) {}

    /** What contexts throw, whose reasons are its suppressed exceptions. */
    private static final Set<Class<?>> NESTED =
            Set.of(
                    CheckpointException.class,
                    RestoreException.class,
                    javax.crac.CheckpointException.class,
                    javax.crac.RestoreException.class);

    private final List<Failure> failures = new ArrayList<>();

    /** Adds what a resource threw; of a nested context's exception only the reasons. */
    synchronized void add(Throwable thrown, Resource resource) {
        String name = describe(resource);
        Throwable[] reasons = thrown.getSuppressed();
        boolean nested = NESTED.contains(thrown.getClass()) && reasons.length > 0;
        if (nested) {
            for (Throwable reason : reasons) {
                failures.add(new Failure(reason, name));
            }
        } else {
            failures.add(new Failure(thrown, name));
        }
    }

    /** Adds a reason that no resource gave. */
    synchronized void add(Throwable reason) {
        failures.add(new Failure(reason, null));
    }

    synchronized boolean isEmpty() {
        return failures.isEmpty();
    }

    synchronized List<Failure> list() {
        return List.copyOf(failures);
    }

    <T extends Throwable> T suppressedIn(T exception) {
        for (Failure failure : list()) {
            exception.addSuppressed(failure.thrown);
        }
        return exception;
    }

    /** A name for people. A resource's own {@code toString} may throw, or say far too much. */
    static String describe(Object resource) {
        String name;
        try {
            name = resource.toString();
        } catch (Throwable e) {
            name = null;
        }
        if (name == null) {
            String hash = Integer.toHexString(System.identityHashCode(resource));
            return resource.getClass().getName() + "@" + hash;
        }
        return name.length() <= 200 ? name : name.substring(0, 199) + "…";
    }
}
