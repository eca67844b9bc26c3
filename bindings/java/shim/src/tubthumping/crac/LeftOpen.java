package tubthumping.crac;

import java.io.IOException;
import java.lang.System.Logger.Level;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import jdk.crac.impl.CheckpointOpenFileException;
import jdk.crac.impl.CheckpointOpenResourceException;
import jdk.crac.impl.CheckpointOpenSocketException;
import tubthumping.crac.ResourcePolicies.Action;
import tubthumping.crac.ResourcePolicies.Rule;

/**
 * Does what the rules say with the descriptors that the application has left open.
 *
 * <p>In: the rules, and what is open when all before-hooks have run. Out: what the engine is to
 * restore; what is closed; what is out of the way and opened again before the after-hooks.
 *
 * <p>Invariant: nothing of the JVM's own is touched, whatever a rule says.
 *
 * <p>The engine opens files that can be written, and sockets that listen, by itself and at once. A
 * file that is only read may be another one when the copy gets up, which the engine would refuse;
 * so {@code reopen} takes it out of the way before the image.
 */
final class LeftOpen {
    private static final System.Logger LOGGER = System.getLogger("jdk.crac");

    private static boolean hinted;

    private final ResourcePolicies policies;
    private final List<Kept> kept = new ArrayList<>();
    private final List<Parked> parked = new ArrayList<>();
    private final List<Integer> wakeUps;

    /** What the engine restores, and the object that has it, if any. */
    private record Kept(OpenDescriptor descriptor, Object owner) {}

    /** A file out of the way. */
    private record Parked(OpenDescriptor descriptor, Object owner, int flags, long offset) {}

    /**
     * Nothing done yet.
     *
     * @param policies the rules at the checkpoint
     */
    LeftOpen(ResourcePolicies policies) throws Exception {
        this.policies = policies;
        wakeUps = WakeUps.find();
    }

    /** Follows the rules. Comes when nothing unreachable is open any more. */
    void apply(List<String> allowedPaths, Failures failures) {
        if (policies.isEmpty()) {
            return;
        }
        Owners owners = Owners.find();
        for (OpenDescriptor descriptor : OpenDescriptor.all()) {
            Object owner = owners.of(descriptor.number());
            // A connection by a unix socket looks like what the JVM has for itself, but has an owner.
            boolean own = descriptor.isOwn() && !(descriptor.isSocket() && owner != null);
            own |= wakeUps.contains(descriptor.number());
            Rule rule = own ? null : policies.of(descriptor);
            if (rule == null || rule.action() == Action.ERROR || isAllowed(descriptor, allowedPaths)) {
                continue;
            }
            if (rule.warns()) {
                warn(descriptor, owner);
            }
            switch (rule.action()) {
                case IGNORE -> kept.add(new Kept(descriptor, owner));
                case CLOSE -> close(descriptor, owner, failures);
                default -> prepareReopening(descriptor, owner, failures);
            }
        }
    }

    /** Jars, modules and the agent stay open all the time. */
    private static boolean isAllowed(OpenDescriptor descriptor, List<String> allowedPaths) {
        Path path = descriptor.isFile() ? OpenDescriptor.pathOf(descriptor.name()) : null;
        return path != null && allowedPaths.stream().map(OpenDescriptor::pathOf).anyMatch(path::startsWith);
    }

    private void prepareReopening(OpenDescriptor descriptor, Object owner, Failures failures) {
        if (descriptor.isSocket() && !descriptor.isListening()) {
            // Nobody can make a connection again from one end; it is refused as what it is.
            return;
        }
        if (!descriptor.kind().equals("regular") || !descriptor.isReadOnly()) {
            kept.add(new Kept(descriptor, owner));
            return;
        }
        List<byte[]> answer = Strings.unpackRaw(Agent.park(descriptor.number()));
        if (!Strings.text(answer.get(0)).equals("parked")) {
            failures.add(cannot("close", descriptor, owner, Strings.text(answer.get(1))));
            return;
        }
        int flags = Integer.parseInt(Strings.text(answer.get(1)));
        long offset = Long.parseLong(Strings.text(answer.get(2)));
        parked.add(new Parked(descriptor, owner, flags, offset));
    }

    private static void close(OpenDescriptor descriptor, Object owner, Failures failures) {
        try {
            if (owner == null) {
                Agent.close(descriptor.number());
            } else {
                Owners.close(owner);
            }
        } catch (IOException e) {
            Exception failure = cannot("close", descriptor, owner, e.getMessage());
            failure.initCause(e);
            failures.add(failure);
        }
    }

    /** Numbers of what the engine is to restore, also of what stands in the place of a file. */
    List<Integer> kept() {
        List<Integer> numbers = new ArrayList<>(wakeUps);
        kept.forEach(it -> numbers.add(it.descriptor.number()));
        parked.forEach(it -> numbers.add(it.descriptor.number()));
        return numbers;
    }

    /** Opens again what is out of the way, in the original as in a copy. */
    void reopen(Failures failures) {
        for (Parked file : parked) {
            OpenDescriptor descriptor = file.descriptor;
            byte[] packed =
                    Agent.reopen(descriptor.number(), descriptor.path(), file.flags, file.offset);
            List<byte[]> problem = Strings.unpackRaw(packed);
            if (!problem.isEmpty()) {
                // Whoever uses it is to hear that it is closed.
                close(descriptor, file.owner, failures);
                String text = Strings.text(problem.get(0));
                failures.add(cannot("reopen", descriptor, file.owner, text));
            }
        }
        parked.clear();
    }

    /** Reads the rules again, which a restore may have changed, and follows those that are new. */
    void restored(Failures failures) {
        ResourcePolicies now;
        try {
            now = ResourcePolicies.current();
        } catch (IllegalStateException e) {
            failures.add(e);
            return;
        }
        if (now.isEmpty() || now.sameAs(policies)) {
            return;
        }
        for (Kept it : kept) {
            Rule rule = now.of(it.descriptor);
            if (rule == null || rule.action() == Action.IGNORE || rule.action() == Action.REOPEN) {
                continue;
            }
            if (rule.action() == Action.ERROR) {
                failures.add(refusal(it.descriptor, it.owner));
            }
            close(it.descriptor, it.owner, failures);
        }
        // Rules that forbid what is out of the way: then it stays closed.
        for (Parked it : List.copyOf(parked)) {
            Rule rule = now.of(it.descriptor);
            if (rule != null && (rule.action() == Action.CLOSE || rule.action() == Action.ERROR)) {
                if (rule.action() == Action.ERROR) {
                    failures.add(refusal(it.descriptor, it.owner));
                }
                close(it.descriptor, it.owner, failures);
                parked.remove(it);
            }
        }
    }

    /** What a descriptor is refused with, in the words of a CRaC JDK. */
    static Exception refusal(OpenDescriptor descriptor, Object owner) {
        String text = owner == null ? descriptor.description() : what(descriptor, owner);
        if (descriptor.isSocket()) {
            return new CheckpointOpenSocketException(text);
        }
        return descriptor.isFile()
                ? new CheckpointOpenFileException(text)
                : new CheckpointOpenResourceException(text);
    }

    private static Exception cannot(
            String verb, OpenDescriptor descriptor, Object owner, String reason) {
        String text = "Cannot " + verb + " " + what(descriptor, owner) + ": " + reason;
        return descriptor.isSocket()
                ? new CheckpointOpenSocketException(text)
                : new CheckpointOpenResourceException(text);
    }

    private static String what(OpenDescriptor descriptor, Object owner) {
        if (descriptor.isSocket() && owner != null) {
            String text = Owners.describe(owner);
            boolean isNamed = text.contains(descriptor.local());
            // JVM(17): the path of a unix socket is left out.
            String path = "[" + descriptor.local() + "]";
            return isNamed || descriptor.family().equals("inet")
                    ? text
                    : owner.getClass().getName() + path;
        }
        return descriptor.isFile() ? descriptor.name() : descriptor.description();
    }

    private static synchronized void warn(OpenDescriptor descriptor, Object owner) {
        String text = what(descriptor, owner) + " was not closed by the application.";
        LOGGER.log(Level.WARNING, text);
        if (!hinted) {
            hinted = true;
            LOGGER.log(Level.INFO, "To have no such warnings, add 'warn: false' to the rule.");
        }
    }
}
