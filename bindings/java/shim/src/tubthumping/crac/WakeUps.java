package tubthumping.crac;

import java.nio.channels.Selector;
import java.util.ArrayList;
import java.util.List;

/**
 * Pipes by which the JDK wakes threads of its own: those of the groups behind asynchronous channels, one of which
 * stays for ever once there was such a channel, and those of selectors that use poll(2). From outside they look
 * like an application's.
 *
 * <p>In: the heap, where there may be such an object. Out: numbers of descriptors.
 *
 * <p>JVM(since 17): {@code sun.nio.ch.EPollPort} with {@code sp} and {@code closed}, {@code
 * sun.nio.ch.PollSelectorImpl} with {@code fd0} and {@code fd1}; same on 25.
 */
final class WakeUps {
    private static final String PORT = "sun.nio.ch.EPollPort";
    private static final String SELECTOR = "sun.nio.ch.PollSelectorImpl";

    private WakeUps() {}

    static List<Integer> find() throws Exception {
        List<Class<?>> types = new ArrayList<>();
        for (String name : List.of(PORT, SELECTOR)) {
            Class<?> type = Internals.type(name);
            if (type != null && Internals.isInUse(type)) {
                types.add(type);
            }
        }
        List<Integer> numbers = new ArrayList<>();
        if (types.isEmpty()) {
            return numbers;
        }
        Object[] all = Agent.instances(types.toArray(new Class<?>[0]));
        for (Object one : all == null ? new Object[0] : all) {
            // The numbers of what is closed may be somebody else's by now.
            if (one instanceof Selector selector) {
                if (selector.isOpen()) {
                    numbers.add(Internals.field(one.getClass(), "fd0").getInt(one));
                    numbers.add(Internals.field(one.getClass(), "fd1").getInt(one));
                }
            } else if (!Internals.field(one.getClass(), "closed").getBoolean(one)) {
                for (int number : (int[]) Internals.field(one.getClass(), "sp").get(one)) {
                    numbers.add(number);
                }
            }
        }
        return numbers;
    }
}
