package tubthumping.crac;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.BooleanSupplier;
import jdk.crac.CheckpointException;
import jdk.crac.Resource;
import jdk.crac.RestoreException;

/**
 * Checkpoints of this process, one at a time: those that an engine asks for through the control
 * socket, and those that the application asks for itself.
 *
 * <p>In: calls of the native half, which speaks to the engine, and of {@code Core}. Out: one {@link
 * Round} at a time.
 *
 * <p>A checkpoint that the application asks for goes the same way as any other: {@code tub
 * checkpoint} is started from here, and comes back through the control socket.
 */
public final class Coordinator {
    /** The only one. */
    public static final Coordinator INSTANCE = new Coordinator();

    /** How long the resources may take together where there is no engine to say so. */
    private static final long DEFAULT_TIMEOUT_MS = 60_000;

    /** How long a refusal waits for the after-hooks before it is given. */
    private static final long REFUSAL_PATIENCE_MS = 10_000;

    /** How often to look whether an engine that was started is still there. */
    private static final long ENGINE_POLL_MS = 50;

    /** Requests take turns: each gets a cycle of its own. */
    private final ReentrantLock requests = new ReentrantLock(true);

    // Guarded by this.
    private Round round;
    private Request request;
    private long generation;

    private Coordinator() {}

    /** A checkpoint that the application asked for: its engine, and its round once it comes. */
    private static final class Request {
        private static final long NOT_STARTED = -1;

        private long engine = NOT_STARTED;
        private Round round;
    }

    /**
     * Asks for a checkpoint and waits for its end.
     *
     * @throws CheckpointException if there is no image
     * @throws RestoreException if resources failed afterwards
     */
    public void request() throws CheckpointException, RestoreException {
        synchronized (this) {
            if (round != null && round.runsHere()) {
                throw failed(new IllegalStateException("Recursive checkpoint is not allowed"));
            }
        }
        Round mine;
        requests.lock();
        try {
            mine = perform();
        } finally {
            requests.unlock();
        }
        if (mine.wasInterrupted()) {
            Thread.currentThread().interrupt();
        }
        mine.report();
        if (mine.hasNewMain()) {
            // Here, so that what called goes on when it returns.
            mine.runNewMain();
        }
    }

    private Round perform() throws CheckpointException {
        // Known before the engine is started, which may come back at any time from then on.
        Request mine = new Request();
        synchronized (this) {
            Monitors.await(this, () -> round == null, Monitors.FOREVER_MS);
            request = mine;
        }
        try {
            List<byte[]> started = Strings.unpackRaw(Agent.startEngine());
            String second = started.size() > 1 ? Strings.text(started.get(1)) : "";
            return switch (Strings.text(started.get(0))) {
                case "started" -> {
                    synchronized (this) {
                        mine.engine = Long.parseLong(second);
                        notifyAll();
                    }
                    yield performWithEngine(mine, Path.of(Strings.text(started.get(2))));
                }
                case "unconfigured" -> performWithoutEngine(mine);
                default -> throw failed(new RuntimeException(second));
            };
        } finally {
            synchronized (this) {
                request = null;
                notifyAll();
            }
        }
    }

    private Round performWithoutEngine(Request asked) throws CheckpointException {
        ResourcePolicies policies = policies();
        Round mine;
        synchronized (this) {
            // An engine from outside may have been quicker.
            Monitors.await(this, () -> round == null, Monitors.FOREVER_MS);
            mine = new Round(this, policies, false);
            round = mine;
            asked.round = mine;
            mine.isAwaited(true);
        }
        mine.start();
        if (!mine.awaitPrepared(DEFAULT_TIMEOUT_MS)) {
            Exception reason = mine.giveUp(DEFAULT_TIMEOUT_MS);
            if (reason != null) {
                throw failed(reason);
            }
        }
        mine.awaitOver(Monitors.FOREVER_MS);
        return mine;
    }

    private Round performWithEngine(Request mine, Path messages) throws CheckpointException {
        try {
            Round theRound = awaitRound(mine, messages);
            // The engine bounds the before-hooks; how long the after-hooks take is theirs.
            theRound.awaitOver(Monitors.FOREVER_MS);
            return theRound;
        } finally {
            try {
                Files.deleteIfExists(messages);
            } catch (IOException e) {
                // It lies in a directory for temporary files.
            }
        }
    }

    /** Waits for the engine to ask for its round, or to end without having done so. */
    private Round awaitRound(Request mine, Path messages) throws CheckpointException {
        boolean gone = false;
        while (true) {
            synchronized (this) {
                Monitors.await(this, () -> mine.round != null, ENGINE_POLL_MS);
                // Asked in this order: an engine that came and went had its round.
                if (mine.round != null) {
                    return mine.round;
                }
                if (gone) {
                    throw failed(new RuntimeException(engineMessage(messages)));
                }
            }
            gone = hasEnded(mine.engine);
        }
    }

    /** Whether a process is gone. One that nobody reaps counts, as in a container without init. */
    private static boolean hasEnded(long pid) {
        try {
            String stat = Files.readString(Path.of("/proc", Long.toString(pid), "stat"));
            // "pid (name) state …"; the name may hold anything.
            char state = stat.charAt(stat.lastIndexOf(')') + 2);
            return state == 'Z' || state == 'X';
        } catch (IOException e) {
            return true;
        }
    }

    private static String engineMessage(Path messages) {
        try {
            String text = Files.readString(messages).trim();
            return text.isEmpty() ? "the engine ended without a word" : text;
        } catch (IOException e) {
            return "the engine ended, and what it said cannot be read: " + e;
        }
    }

    private static ResourcePolicies policies() throws CheckpointException {
        try {
            return ResourcePolicies.current();
        } catch (IllegalStateException e) {
            throw failed(e);
        }
    }

    private static CheckpointException failed(Exception reason) {
        CheckpointException exception = new CheckpointException();
        exception.addSuppressed(reason);
        return exception;
    }

    /** Called by a round at its end, on its thread. */
    void over(Round ended) {
        synchronized (this) {
            round = null;
            notifyAll();
        }
        if (ended.isAwaited()) {
            return;
        }
        ended.logFailures();
        if (ended.hasNewMain()) {
            // Nobody waits for the round, and the JVM must not end before the class has begun.
            Thread main = new Thread(ended::runNewMainAlone, "CRaC new main");
            main.setDaemon(false);
            main.start();
        }
    }

    /** @param counted by whoever took the image; 0 where he did not count */
    synchronized void generation(long counted) {
        generation = counted == 0 ? generation + 1 : counted;
    }

    // What follows is called by the native half, on threads of its own. Byte arrays are lists of
    // strings, see Strings.

    /** State, runtime, generation, resource…. */
    private static byte[] status() {
        Round current;
        long generation;
        synchronized (INSTANCE) {
            current = INSTANCE.round;
            generation = INSTANCE.generation;
        }
        String state = "running";
        if (current != null) {
            state = current.phase() == Round.Phase.PREPARED ? "prepared" : "preparing";
        }
        Strings answer = new Strings().add(state).add(runtime()).add(generation);
        for (Resource resource : GlobalContext.INSTANCE.snapshot()) {
            answer.add(Failures.describe(resource));
        }
        return answer.pack();
    }

    /**
     * Tells every resource. {@code prepared}, runtime, number of resources, resource…, number of
     * descriptors that a rule leaves to the engine, descriptor…, allowed path…; or kind of refusal, message, and for each failure type, message, resource.
     */
    private static byte[] prepare(long peer, long timeoutMillis) {
        ResourcePolicies policies;
        try {
            // Before anybody is told: a rule that is wrong is known at once. Each time, since a
            // restore may have changed it.
            policies = ResourcePolicies.current();
        } catch (IllegalStateException e) {
            return refusal("runtime", e.getMessage());
        }
        Round mine;
        synchronized (INSTANCE) {
            // One that only has its after-hooks left is waited for: a process that was restored a
            // moment ago can be checkpointed again.
            BooleanSupplier free =
                    () -> INSTANCE.round == null || !INSTANCE.round.isResuming();
            Monitors.await(INSTANCE, free, timeoutMillis);
            Round other = INSTANCE.round;
            if (other != null) {
                String hung = other.running();
                String of = hung == null ? "" : ": " + hung + " has not returned";
                return refusal("busy", "another checkpoint is under way" + of);
            }
            mine = new Round(INSTANCE, policies, true);
            INSTANCE.round = mine;
            Request asked = INSTANCE.request;
            if (asked != null) {
                // An engine can be here before the thread that has started it knows its id.
                BooleanSupplier known =
                        () -> asked.engine != Request.NOT_STARTED || INSTANCE.request != asked;
                Monitors.await(INSTANCE, known, REFUSAL_PATIENCE_MS);
                // A peer in another PID namespace has no number here.
                if (peer == asked.engine || peer == 0) {
                    asked.round = mine;
                    mine.isAwaited(true);
                    INSTANCE.notifyAll();
                }
            }
        }
        mine.start();
        if (!mine.awaitPrepared(timeoutMillis)) {
            Exception reason = mine.giveUp(timeoutMillis);
            if (reason != null) {
                return refusal("timed-out", reason.getMessage());
            }
        }
        if (mine.phase() == Round.Phase.PREPARED) {
            List<String> names = mine.resourceNames();
            Strings answer = new Strings().add("prepared").add(runtime());
            List<Integer> kept = mine.keptDescriptors();
            answer.add(names.size()).addAll(names).add(kept.size()).addAll(kept);
            answer.add(mine.metrics().size());
            mine.metrics().forEach((name, value) -> answer.add(name).add(value));
            return answer.addAll(mine.allowedPaths()).pack();
        }
        mine.awaitOver(REFUSAL_PATIENCE_MS);
        return refused(mine.beforeFailures().list());
    }

    /** Waits for the end of the round: nothing; or the name of the resource that hangs. */
    private static byte[] awaitOver(long timeoutMillis) {
        Round current;
        synchronized (INSTANCE) {
            current = INSTANCE.round;
            // Until it is gone from here too, the next one would be told that it is busy.
            if (current == null
                    || Monitors.await(INSTANCE, () -> INSTANCE.round != current, timeoutMillis)) {
                return new byte[0];
            }
        }
        String hung = current.running();
        return new Strings().add(hung == null ? "the JVM" : hung).pack();
    }

    private static byte[] refused(List<Failures.Failure> failures) {
        boolean byResource = failures.stream().anyMatch(failure -> failure.resource() != null);
        String count = failures.size() == 1 ? "1 failure" : failures.size() + " failures";
        Strings answer =
                new Strings()
                        .add(byResource ? "resource-failed" : "runtime")
                        .add(count + " before the checkpoint");
        for (Failures.Failure failure : failures) {
            String message = failure.thrown().getMessage();
            answer.add(failure.thrown().getClass().getName())
                    .add(message == null ? "" : message)
                    .add(failure.resource() == null ? "" : failure.resource());
        }
        return answer.pack();
    }

    private static byte[] refusal(String kind, String message) {
        return new Strings().add(kind).add(message).pack();
    }

    private static String runtime() {
        return System.getProperty("java.vm.name") + " " + System.getProperty("java.vm.version");
    }
}
